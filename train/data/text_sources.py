"""Where text comes from: files, folders, pipes, tables and named texts, each found by its name."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ...runtime.errors import CorpusError, UsageError
from ...runtime.hub import HUB_PREFIX
from .named_texts import BUILTIN, TINYSHAKESPEARE, builtin_corpus, fetch
from .own_files import own_files
from .pipes import Spooled, is_pipe, pipe_name
from .tables import Table, is_table, open_table, recorded_table

__all__ = [
    "SUFFIXES",
    "TextPart",
    "find_texts",
    "recorded_name",
    "recorded_names",
    "source_names",
]

SUFFIXES = (".txt", ".text", ".md", ".markdown", ".rst", ".adoc", ".org")
"""Suffixes of the files read from a folder, in lower case; matching ignores case."""


class TextPart(NamedTuple):
    """One text of a corpus; ``path`` is ``None`` for what is not a file of text."""

    name: str
    path: Path | None
    size: int
    pipe: Spooled | None = None
    table: Table | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that hold it."""
        return (self.path,) if self.path else self.table.files if self.table else ()


def source_names(sources: object) -> list[str]:
    """Names of the sources, which name something or could do so.

    Raises:
        UsageError: A source is no name, but a text itself, say, or an open file.
    """
    is_one = isinstance(sources, str | bytes | os.PathLike) or hasattr(sources, "read")
    each = list(sources) if isinstance(sources, Iterable) and not is_one else [sources]
    if not each:
        raise UsageError("there is no corpus; give at least one file, folder or name")
    names: list[str] = []
    for source in each:
        name = os.fspath(source) if isinstance(source, os.PathLike) else source
        if not isinstance(name, str):
            raise UsageError(
                f"the text is given as {type(name).__name__}; give the name of a file or folder, "
                "or a list of names"
            )
        if not _can_name(name):
            raise UsageError(
                f"{name[:30]!r}, and so on, looks like a text, not like the name of a file; write "
                "the text to a file and give its name"
            )
        names.append(name)
    return names


def _can_name(name: str) -> bool:
    """Whether a file has this name, or might have it."""
    try:
        os.stat(name)
    except ValueError:  # NUL, or characters that no name has
        return False
    except OSError as error:
        return error.errno != errno.ENAMETOOLONG and "\n" not in name
    return True


def find_texts(
    source: str,
    suffixes: Sequence[str],
    spool: Path | None,
    known: Collection[Hashable],
    notes: list[str],
) -> Iterator[tuple[Hashable, TextPart]]:
    """List the texts that one source stands for, each with what tells it from all others.

    Args:
        source: A name, as for :class:`.corpus.Corpus`.
        suffixes: Suffixes of the text files in a folder.
        spool: Folder for a temporary file with what a pipe holds; ``None`` keeps it in memory.
        known: What tells the texts apart that are known already.
        notes: Collects what the user should know, a sentence each.

    Raises:
        CorpusError: A file is missing, a folder has no text file, or a download failed.
        StorageError: What a pipe holds cannot be kept.
    """
    if source == BUILTIN:
        yield BUILTIN, TextPart(BUILTIN, None, len(builtin_corpus().encode()))
        return
    if is_pipe(source):
        name, identity = pipe_name(source), _identity(0 if source == "-" else source)
        # A pipe that has been read is empty.
        pipe = None if identity in known else Spooled(source, spool)
        yield identity, TextPart(name, None, pipe.size if pipe else 0, pipe)
        return
    if is_table(source):
        table = open_table(source)
        yield table.identity, TextPart(table.name, None, table.size, table=table)
        return
    named = source == TINYSHAKESPEARE.name
    path = fetch(TINYSHAKESPEARE) if named else Path(source)
    if path.is_dir():
        for part in _find_files(path, suffixes, notes):
            assert part.path is not None
            yield _identity(part.path), part
        return
    if not path.is_file():
        problem = "is neither a file nor a pipe" if path.exists() else "does not exist"
        raise CorpusError(f"{path} {problem}; give a UTF-8 text file")
    part = TextPart(source if named else path.name, path, path.stat().st_size)
    yield _identity(path), part


def _identity(path: str | Path | int) -> Hashable:
    """What is the same for two names of one file."""
    try:
        status = os.stat(path)
    except OSError:  # standard input is closed
        return path
    return status.st_dev, status.st_ino


def _find_files(folder: Path, suffixes: Sequence[str], notes: list[str]) -> list[TextPart]:
    """List the text files in a folder and below, except hidden files and links to the outside.

    Files that rillet wrote are left out, with a note.
    """
    root, others = folder.resolve(), Counter[str]()
    parts: dict[Path, TextPart] = {}
    ours: list[str] = []

    def refuse(error: OSError) -> None:
        raise error

    # Linked folders are not followed: those inside the root are visited anyway.
    for place, folders, files in os.walk(root, onerror=refuse):
        own = own_files(Path(place), files)
        folders[:] = [name for name in folders if not name.startswith(".") and name not in own]
        for path in (Path(place, name) for name in files if not name.startswith(".")):
            target = Path(os.path.realpath(path))  # unlike resolve(), accepts a link to itself
            if not (target.is_relative_to(root) and target.is_file()):
                continue
            if path.name in own:
                if path.suffix.lower() in suffixes:
                    ours.append(path.relative_to(root).as_posix())
            elif path.suffix.lower() not in suffixes:
                others[path.suffix.lower() or "without a suffix"] += 1
            elif target not in parts or path == target:  # a file and a link to it are one text
                name = f"{root.name}/{path.relative_to(root).as_posix()}"
                parts[target] = TextPart(name, target, target.stat().st_size)
    if ours:
        shown = ", ".join(sorted(ours)[:3]) + (", …" if len(ours) > 3 else "")
        were = "was left out: rillet wrote it" if len(ours) == 1 else "were left out: rillet's own"
        notes.append(f"of {folder}, {shown} {were}")
    if not parts:
        seen = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(5))
        raise CorpusError(
            f"{folder} is a folder without text files (it has {seen or 'no files'}); "
            f"give a file, or a folder with files that end in {', '.join(suffixes)}"
        )
    return sorted(parts.values())


def recorded_name(source: str | Path) -> str:
    """A source as it may stand in a record: no folder of this machine is named.

    A relative path is kept, so that the recorded command runs where it ran; of any other path, only
    the last part is.
    """
    if str(source).startswith(HUB_PREFIX):
        return recorded_table(str(source))
    path = Path(source)
    outside = path.is_absolute() or ".." in path.parts
    return path.name if outside and path.name else str(source)


def recorded_names(sources: Sequence[str]) -> list[str]:
    """What a repeated command calls the texts.

    The first pipe is standard input there; others have placeholders, since it is read once.
    """
    pipes = list(dict.fromkeys(source for source in sources if is_pipe(source)))
    names = {pipe: f"PIPE{number}" for number, pipe in enumerate(pipes, start=1)}
    names |= dict.fromkeys(pipes[:1], "-")
    return [names.get(source) or recorded_name(source) for source in sources]

"""Training text: files, folders and named corpora, read as one stream."""

from __future__ import annotations

import codecs
import copy
import errno
import hashlib
import http.client
import os
import sys
import urllib.request
from collections import Counter, deque
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...runtime.errors import CorpusError, UsageError
from ...runtime.files import as_path, sha256_bytes, sha256_file, write_atomic
from ...runtime.hub import HUB_PREFIX
from ...runtime.tokenizer import text_bytes
from ...runtime.wide_text import wide_encoding
from .own_files import own_files
from .pipes import Spooled, is_pipe, pipe_name
from .tables import Table, is_table, open_table, recorded_table

__all__ = [
    "BUILTIN",
    "MIN_CHARACTERS",
    "SUFFIXES",
    "TINYSHAKESPEARE",
    "Corpus",
    "CorpusFacts",
    "Progress",
    "Remote",
    "builtin_corpus",
    "cache_folder",
    "fetch",
    "read_corpus",
]

BUILTIN = "builtin:pydoc"
"""Name of the corpus that ships with Python."""

MIN_CHARACTERS = 2_000
"""Minimum length of a corpus."""

SUFFIXES = (".txt", ".text", ".md", ".markdown", ".rst", ".adoc", ".org")
"""Suffixes of the files read from a folder, in lower case; matching ignores case."""

Progress = Callable[[str, int, int], None]
"""Called with the current activity, the bytes of text done, and the total, which is approximate."""


class Remote(NamedTuple):
    """A text to download once: its name, URL, size in bytes and SHA-256."""

    name: str
    url: str
    size: int
    sha256: str


TINYSHAKESPEARE = Remote(
    "tinyshakespeare",
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
    1_115_394,
    "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
)


class CorpusFacts(NamedTuple):
    """Number of characters, the sorted distinct characters, and the SHA-256 of the UTF-8 text.

    ``zeros`` counts the characters U+0000: binary data, most likely.
    """

    characters: int
    symbols: str
    sha256: str
    zeros: int = 0


class _Part(NamedTuple):
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


class Corpus:
    """One or several texts, read as one, and never held in memory as a whole.

    Two newlines are inserted after a text that does not end with one. After a text that does,
    nothing is inserted, so that the parts of a split file join seamlessly.

    Args:
        sources: A UTF-8 text file; a pipe, or ``-`` for standard input, which is read at once; a
            folder, which stands for all text files in it and below, sorted by path;
            :data:`BUILTIN`; ``tinyshakespeare``, downloaded unless cached; a Parquet file, a saved
            ``datasets.Dataset``, or ``hf:NAME`` (see :mod:`.tables`); or several of these.
        suffixes: Suffixes of the text files in a folder.
        spool: Folder for a temporary file with what a pipe holds; ``None`` keeps it in memory.

    Attributes:
        notes: What the user should know about the sources, one sentence each.
        found: Names of the texts, by what tells a file from all others.

    Raises:
        CorpusError: A file is missing, a folder has no text file, or a download failed.
        StorageError: What a pipe holds cannot be kept.
        UsageError: A source is no name, but a text itself, say, or an open file.
    """

    def __init__(
        self,
        sources: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        suffixes: Sequence[str] = SUFFIXES,
        spool: str | Path | None = None,
    ) -> None:
        names, place = _names(sources), None if spool is None else as_path(spool)
        self.notes: list[str] = []
        self._parts: list[_Part] = []
        self.found: dict[Hashable, str] = {}
        for source in names:
            for identity, part in _find(source, suffixes, place, self.found, self.notes):
                if identity in self.found:  # else text would be held out that is trained on
                    self.notes.append(f"{part.name} is given more than once; it is read once")
                else:
                    self.found[identity] = part.name
                    self._parts.append(part)
        self._label = names[0] + (f" (and {len(names) - 1} more)" if len(names) > 1 else "")
        self._facts: CorpusFacts | None = None
        self.any_bytes = False
        """Whether bytes that are not UTF-8 are kept, by ``surrogateescape``, instead of refused."""

    def as_bytes(self) -> Corpus:
        """The same corpus, which may hold any bytes: for a tokenizer that reads them."""
        if self.any_bytes:
            return self  # with what a scan has found
        corpus = copy.copy(self)
        corpus.any_bytes = True
        return corpus

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the texts, in order: file names, or paths below the folder's parent."""
        return tuple(part.name for part in self._parts)

    @property
    def size(self) -> int:
        """Size of the texts in bytes when the corpus was opened."""
        return sum(part.size for part in self._parts)

    @property
    def characters(self) -> int:
        """Number of characters; the first access reads the corpus once."""
        return self.scan().characters

    @property
    def symbols(self) -> str:
        """The distinct characters, sorted; the first access reads the corpus once."""
        return self.scan().symbols

    @property
    def sha256(self) -> str:
        """SHA-256 of the whole text as UTF-8; the first access reads the corpus once."""
        return self.scan().sha256

    def scan(self, progress: Progress | None = None) -> CorpusFacts:
        """Read the corpus once and describe it; later calls return the same facts."""
        if self._facts is None:
            deque(self.blocks(progress), maxlen=0)
        assert self._facts is not None
        return self._facts

    def shared(self, other: Corpus) -> str | None:
        """Name of a text that is also in another corpus; ``None`` if there is none."""
        return next((name for key, name in other.found.items() if key in self.found), None)

    def stamp(self) -> str:
        """A hash of the files' names, sizes and times, which changes when a text does."""
        paths = [(part.name, path) for part in self._parts for path in part.files]
        found = [(name, path.resolve(), path.stat()) for name, path in paths]
        files = [(name, str(path), it.st_size, it.st_mtime_ns) for name, path, it in found]
        pipes = [part.pipe.sha256 for part in self._parts if part.pipe]
        return sha256_bytes(repr((self.names, sys.version, files, *pipes)).encode())

    def blocks(
        self, progress: Progress | None = None, what: str = "reading", size: int = 1 << 20
    ) -> Iterator[str]:
        """Iterate over the text in pieces that end at line ends, unless a line is longer.

        Args:
            progress: Called after each piece.
            what: Name of the activity, for ``progress``.
            size: Maximum number of characters in a piece.

        Raises:
            CorpusError: A text is not UTF-8, the corpus is too short, or it has changed.
        """
        digest, seen, characters, done = hashlib.sha256(), np.zeros(0x110000, bool), 0, 0
        zeros = 0
        for piece in _recut(self._texts(), size):
            data = text_bytes(piece)
            digest.update(data)
            seen[np.frombuffer(piece.encode("utf-32-le", "surrogatepass"), "<u4")] = True
            characters, done = characters + len(piece), done + len(data)
            zeros += data.count(0)
            yield piece
            if progress is not None:
                progress(what, done, self.size)
        symbols = "".join(map(chr, np.flatnonzero(seen)))
        if characters < MIN_CHARACTERS or not symbols.strip():
            problem = f"has only {characters:,} characters" if symbols.strip() else "is empty"
            raise CorpusError(
                f"{self._label} {problem}; give at least {MIN_CHARACTERS:,} characters"
            )
        if len(symbols) == 1:
            raise CorpusError(
                f"{self._label} is {symbols!r} all the way through, so there is nothing to learn; "
                "give a text with different characters"
            )
        known, self._facts = (
            self._facts,
            CorpusFacts(characters, symbols, digest.hexdigest(), zeros),
        )
        if known not in (None, self._facts):
            raise CorpusError(f"{self._label} changed while it was being read; start again")

    def _texts(self) -> Iterator[str]:
        """Decoded text of all parts, with the newlines between them."""
        end = ""
        for part in self._parts:
            errors = "surrogateescape" if self.any_bytes else "strict"
            texts: Iterable[str]
            if part.table is not None:
                texts = part.table.texts()
            else:
                texts = _decode(part, errors) if part.path or part.pipe else [builtin_corpus()]
            between = "\n\n" if end not in ("", "\n") else ""
            for text in texts:
                yield between + text
                between, end = "", text[-1]


def read_corpus(name: str) -> str:
    """Read a file, folder or named corpus as one string; line endings are kept."""
    return "".join(Corpus(name).blocks())


def builtin_corpus() -> str:
    """Python's own reference documentation: English text that needs no download."""
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise CorpusError("this Python lacks pydoc_data; give a text with --corpus FILE") from error
    return "\n\n".join(topics[name] for name in sorted(topics))


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


def cache_folder() -> Path:
    """Folder of downloaded texts: ``RILLET_CACHE``, or ``rillet`` in the user's cache folder."""
    if own := os.environ.get("RILLET_CACHE"):
        return Path(own)
    variable = "LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME"
    return Path(os.environ.get(variable) or os.path.expanduser("~/.cache"), "rillet")


def fetch(remote: Remote, folder: Path | None = None) -> Path:
    """Path of a remote text in the cache; downloads it if it is missing or incomplete.

    Raises:
        CorpusError: The download failed, or its hash is wrong.
    """
    path = (folder or cache_folder()) / f"{remote.name}.txt"
    try:
        if path.is_file() and sha256_file(path) == remote.sha256:
            return path
        with urllib.request.urlopen(remote.url, timeout=30) as answer:  # noqa: S310 - our own URL
            data: bytes = answer.read(remote.size + 1)
        if sha256_bytes(data) != remote.sha256:
            raise CorpusError(
                f"{remote.url} sent {len(data):,} bytes with SHA-256 {sha256_bytes(data)} instead "
                f"of {remote.size:,} bytes with {remote.sha256}; give the file with --corpus FILE"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data)
    except (OSError, http.client.HTTPException) as error:
        raise CorpusError(
            f"{remote.name} cannot be downloaded from {remote.url} into {path.parent} ({error}); "
            "download it on another machine and give the file with --corpus FILE"
        ) from error
    return path


def _names(sources: object) -> list[str]:
    """Names of the sources, which name something or could do so."""
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


def _find(
    source: str,
    suffixes: Sequence[str],
    spool: Path | None,
    known: Collection[Hashable],
    notes: list[str],
) -> Iterator[tuple[Hashable, _Part]]:
    """List the texts that one source stands for, each with what tells it from all others."""
    if source == BUILTIN:
        yield BUILTIN, _Part(BUILTIN, None, len(builtin_corpus().encode()))
        return
    if is_pipe(source):
        name, identity = pipe_name(source), _identity(0 if source == "-" else source)
        # A pipe that has been read is empty.
        pipe = None if identity in known else Spooled(source, spool)
        yield identity, _Part(name, None, pipe.size if pipe else 0, pipe)
        return
    if is_table(source):
        table = open_table(source)
        yield table.identity, _Part(table.name, None, table.size, table=table)
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
    part = _Part(source if named else path.name, path, path.stat().st_size)
    yield _identity(path), part


def _identity(path: str | Path | int) -> Hashable:
    """What is the same for two names of one file."""
    try:
        status = os.stat(path)
    except OSError:  # standard input is closed
        return path
    return status.st_dev, status.st_ino


def _find_files(folder: Path, suffixes: Sequence[str], notes: list[str]) -> list[_Part]:
    """List the text files in a folder and below, except hidden files and links to the outside.

    Files that rillet wrote are left out, with a note.
    """
    root, others = folder.resolve(), Counter[str]()
    parts: dict[Path, _Part] = {}
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
                parts[target] = _Part(name, target, target.stat().st_size)
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


def _decode(part: _Part, errors: str) -> Iterator[str]:
    """Decode a file in nonempty pieces."""
    path = part.path or part.name
    decoder, data = codecs.getincrementaldecoder("utf-8")(errors), b"?"
    try:
        with part.pipe.open() if part.pipe else Path(path).open("rb") as file:
            if errors == "strict" and (encoding := wide_encoding(file.read(1 << 12))):
                raise CorpusError(
                    f"{path} is {encoding}, not UTF-8; convert it first: "
                    f"iconv -f {encoding} -t UTF-8 IN > OUT"
                )
            file.seek(0)
            # Skip the byte order mark: it is not text.
            offset = 3 if file.read(3) == codecs.BOM_UTF8 else 0
            file.seek(offset)
            while data:
                # Large reads fragment the heap, which then grows with the file.
                data = file.read(1 << 14)
                if text := decoder.decode(data, final=not data):
                    yield text
                offset += len(data)
    except UnicodeDecodeError as error:
        # error.object is what the decoder kept from before, followed by the new data.
        start = offset - (len(error.object) - len(data)) + error.start
        raise CorpusError(
            f"{path} is not UTF-8: byte {error.object[error.start]:#04x} at offset {start:,}; "
            "convert it first, for example with: iconv -f LATIN1 -t UTF-8, or train on any bytes "
            "with --tokenizer byte"
        ) from error
    except OSError as error:
        raise CorpusError(f"{path} cannot be read ({error.strerror})") from error


def _recut(texts: Iterable[str], size: int) -> Iterator[str]:
    """Cut a text into pieces of at most ``size`` characters, at line ends where possible."""
    held = ""
    for text in texts:
        held += text
        while len(held) > size:
            cut = held.rfind("\n", 0, size) + 1 or size
            yield held[:cut]
            held = held[cut:]
    if held:
        yield held

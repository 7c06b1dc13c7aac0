"""Training text: files, folders and named corpora, read as one stream."""

from __future__ import annotations

import copy
import hashlib
import os
import sys
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...runtime.errors import CorpusError
from ...runtime.files import as_path, sha256_bytes
from ...runtime.tokenizer import text_bytes
from .decoding import decode, recut
from .named_texts import builtin_corpus
from .text_sources import SUFFIXES, TextPart, find_texts, source_names

__all__ = ["MIN_CHARACTERS", "Corpus", "CorpusFacts", "Progress", "read_corpus"]

MIN_CHARACTERS = 2_000
"""Minimum length of a corpus."""

Progress = Callable[[str, int, int], None]
"""Called with the current activity, the bytes of text done, and the total, which is approximate."""


class CorpusFacts(NamedTuple):
    """Number of characters, the sorted distinct characters, and the SHA-256 of the UTF-8 text.

    ``zeros`` counts the characters U+0000: binary data, most likely.
    """

    characters: int
    symbols: str
    sha256: str
    zeros: int = 0


class Corpus:
    """One or several texts, read as one, and never held in memory as a whole.

    Two newlines are inserted after a text that does not end with one. After a text that does,
    nothing is inserted, so that the parts of a split file join seamlessly.

    Args:
        sources: A UTF-8 text file; a pipe, or ``-`` for standard input, which is read at once; a
            folder, which stands for all text files in it and below, sorted by path;
            :data:`.named_texts.BUILTIN`; ``tinyshakespeare``, downloaded unless cached; a Parquet
            file, a saved ``datasets.Dataset``, or ``hf:NAME`` (see :mod:`.tables`); or several of
            these.
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
        names, place = source_names(sources), None if spool is None else as_path(spool)
        self.notes: list[str] = []
        self._parts: list[TextPart] = []
        self.found: dict[Hashable, str] = {}
        for source in names:
            for identity, part in find_texts(source, suffixes, place, self.found, self.notes):
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
        for piece in recut(self._texts(), size):
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
                texts = decode(part, errors) if part.path or part.pipe else [builtin_corpus()]
            between = "\n\n" if end not in ("", "\n") else ""
            for text in texts:
                yield between + text
                between, end = "", text[-1]


def read_corpus(name: str) -> str:
    """Read a file, folder or named corpus as one string; line endings are kept."""
    return "".join(Corpus(name).blocks())

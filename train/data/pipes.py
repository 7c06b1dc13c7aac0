"""Text from pipes, which can be read only once, kept for as long as a corpus needs it."""

from __future__ import annotations

import hashlib
import io
import mmap
import os
import stat
import sys
import tempfile
from pathlib import Path
from typing import BinaryIO

from ...runtime.errors import CorpusError, StorageError
from ...runtime.files import make_folder

__all__ = ["Spooled", "is_pipe", "pipe_name"]

_STANDARD_INPUT = ("-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0")
_BLOCK = 1 << 20


def is_pipe(source: str) -> bool:
    """Whether a source can be read only once: standard input, or a pipe, as of ``<(command)``."""
    if source == "-":
        return True
    try:
        status = os.stat(source)
    except OSError:
        return False
    terminal = source in _STANDARD_INPUT and stat.S_ISCHR(status.st_mode)
    return stat.S_ISFIFO(status.st_mode) or stat.S_ISSOCK(status.st_mode) or terminal


def pipe_name(source: str) -> str:
    """What a pipe is called in a model's card: the path of a shell's pipe says nothing."""
    if source in _STANDARD_INPUT:
        return "standard input"
    if source.startswith(("/dev/fd/", "/proc/")):
        return "a pipe"
    return f"the pipe {Path(source).name}"


class Spooled:
    """What a pipe held, in a temporary file.

    The file has no name, so nothing is left of it when the process ends, however it ends.

    Args:
        source: The pipe, or ``-`` for standard input; it is read to its end.
        folder: Where the file is, created if missing; ``None`` keeps the text in memory.

    Attributes:
        size: Size of the text in bytes.
        sha256: SHA-256 of these bytes.

    Raises:
        CorpusError: Standard input is closed, or the pipe cannot be read.
        StorageError: The file cannot be written.
    """

    def __init__(self, source: str, folder: Path | None = None) -> None:
        name, where = pipe_name(source), folder or "memory"
        if folder is not None:
            make_folder(folder)
        try:
            self._file = io.BytesIO() if folder is None else tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        except OSError as error:
            raise _full(name, where, error) from error
        digest = hashlib.sha256()
        with _open(source, name) as pipe:
            while block := _read(pipe, name):
                digest.update(block)
                try:
                    self._file.write(block)
                except OSError as error:
                    raise _full(name, where, error) from error
        try:
            self._file.flush()
        except OSError as error:
            raise _full(name, where, error) from error
        self.size, self.sha256 = self._file.tell(), digest.hexdigest()

    def open(self) -> BinaryIO | mmap.mmap:
        """Open the text, from its beginning; several readers do not disturb each other."""
        if isinstance(self._file, io.BytesIO):
            return io.BytesIO(self._file.getbuffer())
        if not self.size:  # mmap rejects an empty file
            return io.BytesIO()
        return mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)


def _open(source: str, name: str) -> io.FileIO:
    try:
        if source not in _STANDARD_INPUT:
            return open(source, "rb", buffering=0)  # Ctrl-C takes effect after every read
        if sys.stdin is None:
            raise CorpusError("standard input is closed; give a file")
        return os.fdopen(os.dup(sys.stdin.fileno()), "rb", buffering=0)
    except OSError as error:
        raise CorpusError(f"{name} cannot be read ({error.strerror})") from error


def _read(pipe: io.FileIO, name: str) -> bytes:
    try:
        return pipe.read(_BLOCK)
    except OSError as error:
        raise CorpusError(f"{name} cannot be read ({error.strerror})") from error


def _full(name: str, where: object, error: OSError) -> StorageError:
    return StorageError(
        f"the text from {name} cannot be kept in {where} ({error.strerror}); free some space, or "
        "choose another place"
    )

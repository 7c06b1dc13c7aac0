"""Reading text from a file or from standard input, by pieces."""

from __future__ import annotations

import codecs
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import CorpusError

__all__ = ["read_pieces"]

_BLOCK = 1 << 16


def read_pieces(path: Path, progress: Callable[[int], object] | None = None) -> Iterator[str]:
    """Read a UTF-8 text of any length in constant memory.

    Args:
        path: The file, or ``-`` for standard input.
        progress: Called with the number of bytes read, after each piece.

    Yields:
        Pieces of the text; line ends are as they stand in the file.

    Raises:
        CorpusError: There is no such file, or it is not UTF-8.
    """
    standard = str(path) == "-"
    if not standard and not path.is_file():
        raise CorpusError(f"{path} does not exist, or is no file; give a text file, or - for stdin")
    decoder = codecs.getincrementaldecoder("utf-8")()
    read = 0
    with open(sys.stdin.fileno() if standard else path, "rb", closefd=not standard) as file:
        while True:
            block = file.read(_BLOCK)
            waiting = len(decoder.getstate()[0])
            try:
                piece = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                raise CorpusError(
                    f"{'standard input' if standard else path} is not UTF-8 at byte "
                    f"{read - waiting + error.start:,}; convert it, for example with "
                    "iconv -f latin1 -t utf-8"
                ) from error
            read += len(block)
            if progress is not None:
                progress(len(block))
            if piece:
                yield piece
            if not block:
                return

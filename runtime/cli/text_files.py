"""Read text from a file or from standard input, piece by piece."""

from __future__ import annotations

import codecs
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import CorpusError
from ..wide_text import wide_encoding

__all__ = ["read_pieces"]

_BLOCK = 1 << 16


def read_pieces(
    path: Path, progress: Callable[[int], object] | None = None, *, any_bytes: bool = False
) -> Iterator[str]:
    """Read a UTF-8 text of any length in constant memory.

    Args:
        path: A file or a pipe, or ``-`` for standard input.
        progress: Called with the number of bytes read, after each piece.
        any_bytes: Keep bytes that are not UTF-8, by ``surrogateescape``, for a tokenizer that
            reads them.

    Yields:
        Pieces of the text, with the line endings of the file.

    Raises:
        CorpusError: There is nothing to read, or it is not UTF-8 and has to be.
    """
    is_stdin = str(path) == "-"
    if is_stdin and sys.stdin is None:
        raise CorpusError("standard input is closed; give a file")
    if not is_stdin and not path.exists():
        raise CorpusError(f"{path} does not exist; give a text file, or - for standard input")
    if not is_stdin and path.is_dir():
        raise CorpusError(f"{path} is a folder; give a text file, or - for standard input")
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape" if any_bytes else "strict")
    read = 0
    with open(sys.stdin.fileno() if is_stdin else path, "rb", closefd=not is_stdin) as file:
        while True:
            block = file.read(_BLOCK)
            if not any_bytes and not read and (encoding := wide_encoding(block)):
                raise CorpusError(
                    f"{'standard input' if is_stdin else path} is {encoding}, not UTF-8; "
                    f"convert it first: iconv -f {encoding} -t UTF-8 IN > OUT"
                )
            pending = len(decoder.getstate()[0])
            try:
                piece = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                raise CorpusError(
                    f"{'standard input' if is_stdin else path} is not UTF-8 at byte "
                    f"{read - pending + error.start:,}; convert it, for example "
                    "with: iconv -f latin1 -t utf-8; a model trained with --tokenizer byte reads "
                    "any bytes"
                ) from error
            read += len(block)
            if progress is not None:
                progress(len(block))
            if piece:
                yield piece
            if not block:
                return

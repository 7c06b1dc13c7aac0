"""From the bytes of a text to pieces of it, with no more than a piece in memory."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from pathlib import Path

from ...runtime.errors import CorpusError
from ...runtime.wide_text import wide_encoding
from .text_sources import TextPart

__all__ = ["decode", "recut"]


def decode(part: TextPart, errors: str) -> Iterator[str]:
    """Decode a file or a pipe in nonempty pieces.

    Args:
        part: The text.
        errors: What becomes of bytes that are not UTF-8: ``strict`` or ``surrogateescape``.

    Raises:
        CorpusError: The text cannot be read, or is not UTF-8.
    """
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


def recut(texts: Iterable[str], size: int) -> Iterator[str]:
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

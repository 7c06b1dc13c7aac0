"""Text in UTF-16 or UTF-32: recognised, so that an error can name it."""

from __future__ import annotations

import codecs

__all__ = ["wide_encoding"]

_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}

_MIN_LENGTH = 16
"""Bytes below which zeros at every other place may be a coincidence."""


def wide_encoding(head: bytes) -> str | None:
    """Whether a text is in UTF-16 or UTF-32, by its byte order mark or the places of its zeros.

    Without a mark, half the bytes of most texts are zeros, which UTF-8 would take for characters.

    Args:
        head: The beginning of the text; some kB are enough.

    Returns:
        The name that ``iconv`` knows, such as ``UTF-16`` or ``UTF-16LE``; ``None`` for other texts.
    """
    for mark, name in _MARKS.items():
        if head.startswith(mark):
            return name
    if len(head) < _MIN_LENGTH:
        return None
    even, odd = (head[start::2].count(0) / len(head[start::2]) for start in range(2))
    if odd > 0.8 and even < 0.1:
        return "UTF-16LE"
    if even > 0.8 and odd < 0.1:
        return "UTF-16BE"
    return None

"""What a stream reads, made into tokens and checked."""

from __future__ import annotations

import inspect
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UsageError
from ..tokenizer import Tokenizer, escaped_bytes, text_bytes

__all__ = [
    "TextSize",
    "UnknownCharacterWarning",
    "checked_tokens",
    "encode_pieces",
    "unknown_text",
]


class UnknownCharacterWarning(UserWarning):
    """A text has characters that the tokenizer has never seen; they were left out."""


@dataclass
class TextSize:
    """The size of a text that is read in pieces.

    Attributes:
        characters: Its characters.
        bytes: Its bytes.
        unknown: How often it has each character that the tokenizer lacks.
    """

    characters: int = 0
    bytes: int = 0
    unknown: Counter[str] = field(default_factory=Counter)


def encode_pieces(
    tokenizer: Tokenizer, pieces: Iterable[str], size: TextSize | None = None
) -> Iterator[list[int]]:
    """Encode a text of any length; warn at its end of characters that have no token.

    Args:
        tokenizer: The model's tokenizer.
        pieces: The text, in pieces of any size.
        size: Counts what was read.

    Yields:
        Token numbers, none of the lists empty.

    Raises:
        UsageError: A piece is no text, or has bytes that are not UTF-8, and the tokenizer takes
            only text.
    """
    size = size or TextSize()
    yield from tokenizer.encode_stream(_noting(tokenizer, pieces, size))
    if size.unknown:
        warnings.warn(
            unknown_text(list(size.unknown)), UnknownCharacterWarning, stacklevel=_callers_level()
        )


def _callers_level() -> int:
    """The ``stacklevel`` of the code outside this package that is being served."""
    package = __name__.partition(".")[0]
    frame, level = inspect.currentframe(), 0
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        frame, level = frame.f_back, level + 1
    return level


def _noting(tokenizer: Tokenizer, pieces: Iterable[str], size: TextSize) -> Iterator[str]:
    if not isinstance(pieces, Iterable):
        raise UsageError(
            f"the text to read is {pieces!r}, of type {type(pieces).__name__}; give str, or pieces "
            "of it"
        )
    for piece in pieces:
        if not isinstance(piece, str):
            raise UsageError(
                f"the text to read has a piece of type {type(piece).__name__}; "
                "give str, and decode bytes first"
            )
        size.characters += len(piece)
        size.bytes += len(text_bytes(piece))
        if missing := tokenizer.unknown(piece):
            if escaped := escaped_bytes("".join(missing)):
                raise UsageError(
                    f"the text has the byte {escaped[0]:#04x}, which is not UTF-8, and this model "
                    "reads only text; convert the text, or train a model that reads any bytes, "
                    "with --tokenizer byte"
                )
            counts = Counter(piece)
            size.unknown.update({character: counts[character] for character in missing})
        yield piece


def checked_tokens(tokens: Sequence[int], vocab_size: int) -> npt.NDArray[np.int64]:
    """Tokens as an array ``[1, T]``; T may be 0.

    Args:
        tokens: Their numbers, ``[T]``.
        vocab_size: How many there are, V.

    Raises:
        UsageError: A number is no token of this model.
    """
    try:
        array: npt.NDArray[Any] = np.asarray([tokens])
        if array.shape == (1, 0):
            return np.zeros((1, 0), np.int64)
        if array.dtype.kind not in "iu" or array.ndim != 2:
            raise ValueError
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"tokens must be a flat list of whole numbers; got {str(tokens)[:80]}"
        ) from error
    if array.min() < 0 or array.max() >= vocab_size:
        raise UsageError(
            f"tokens must lie between 0 and {vocab_size - 1}; got {array.min()} to {array.max()}"
        )
    return array.astype(np.int64, copy=False)


def unknown_text(characters: list[str]) -> str:
    """A sentence that names characters without a token."""
    shown = ", ".join(repr(character) for character in characters[:8])
    more = f" and {len(characters) - 8} more" if len(characters) > 8 else ""
    return (
        "the text has characters that this model has never seen, and they were left out: "
        f"{shown}{more}"
    )

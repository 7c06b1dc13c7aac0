"""Measure how well a stream predicts a text."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UsageError
from ..tokenizer import text_bytes
from .encoding import TextSize, encode_pieces
from .stream import Stream

__all__ = ["Score", "score_stream"]

_CHUNK = 256
"""Tokens predicted at a time."""

_UNICODE = 0x110000 - 0x800
"""Characters that a text may have: all code points but the surrogates."""


@dataclass(frozen=True)
class Score:
    """The cost of a text, each token predicted from all that precedes it.

    A model cannot write a character that its tokenizer lacks: such characters are left out of
    ``tokens``, ``nats``, the loss and the perplexity. Bits per character and per byte are those of
    the whole text, and so compare between models: they charge ``unknown_nats`` for what is missing.

    Attributes:
        tokens: Tokens predicted. The first token of a new stream has no context and is not
            counted, nor are its characters and bytes.
        characters: Characters of the text, unknown ones included.
        bytes: Bytes of the text, unknown characters included.
        nats: Sum of the tokens' negative natural-log probabilities.
        token_logprobs: The log-probability of each token, ``[tokens]``, if it was asked for.
        unknown_characters: Characters that have no token.
        unknown_bytes: Bytes of those characters.
    """

    tokens: int
    characters: int
    bytes: int
    nats: float
    token_logprobs: npt.NDArray[np.float32] | None = None
    unknown_characters: int = 0
    unknown_bytes: int = 0

    @property
    def nats_per_token(self) -> float:
        """Cross-entropy of the tokens, as training reports it."""
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        """The exponential of the loss."""
        return math.exp(min(self.nats_per_token, 700.0))

    @property
    def unknown_nats(self) -> float:
        """What the unknown characters would cost a compressor: where they stand, and which.

        Whether a character is unknown costs the entropy of their share, for every character of the
        text; an unknown one then costs a choice among all of Unicode, 20.1 bits.
        """
        if not self.unknown_characters:
            return 0.0
        parts = (self.unknown_characters, max(0, self.characters - self.unknown_characters))
        total = sum(parts)
        places = sum(part * math.log(total / part) for part in parts if part)
        return places + self.unknown_characters * math.log(_UNICODE)

    @property
    def bits_per_char(self) -> float:
        """Bits per character of the text: compares models whose tokens differ."""
        return (self.nats + self.unknown_nats) / math.log(2) / max(self.characters, 1)

    @property
    def bits_per_byte(self) -> float:
        """Bits per byte of the text: compares models with compressors."""
        return (self.nats + self.unknown_nats) / math.log(2) / max(self.bytes, 1)

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON values."""
        return {
            "tokens": self.tokens,
            "characters": self.characters,
            "bytes": self.bytes,
            "nats": self.nats,
            "unknown_characters": self.unknown_characters,
            "unknown_bytes": self.unknown_bytes,
            "unknown_nats": self.unknown_nats,
            "nats_per_token": self.nats_per_token,
            "perplexity": self.perplexity,
            "bits_per_char": self.bits_per_char,
            "bits_per_byte": self.bits_per_byte,
        }


def score_stream(
    stream: Stream,
    pieces: Iterable[str],
    per_token: bool = False,
    progress: Callable[[int], object] | None = None,
) -> Score:
    """Read a text with a stream, and add up the cost of each token.

    Memory use does not depend on the length of the text, unless ``per_token`` is set.

    Args:
        stream: The stream; it advances.
        pieces: The text, in pieces of any size.
        per_token: Keep the log-probability of each token.
        progress: Called with the number of tokens read, after each chunk.

    Returns:
        The score.

    Raises:
        UsageError: The text is too short for a prediction.
    """
    text = TextSize()
    tokens = 0
    nats = 0.0
    kept: list[npt.NDArray[Any]] = []
    for chunk in _chunks(stream, pieces, text):
        logprobs = _logprobs(stream, chunk)
        for token in chunk[: chunk.size - logprobs.size]:  # the first of a new stream
            first = stream.model.tokenizer.token_bytes[token]
            # Every byte begins a character but those of the form 10xxxxxx.
            text.characters -= sum(byte & 0xC0 != 0x80 for byte in first)
            text.bytes -= len(first)
        tokens += logprobs.size
        nats -= float(logprobs.sum(dtype=np.float64))
        if per_token:
            kept.append(logprobs)
        if progress is not None:
            progress(chunk.size)
    if not tokens:
        raise UsageError(
            "the text is too short to score: the first token of a stream has nothing before it; "
            "give a text of at least two tokens"
        )
    token_logprobs = np.concatenate(kept).astype(np.float32) if per_token else None
    unknown_bytes = sum(len(text_bytes(one)) * count for one, count in text.unknown.items())
    return Score(
        tokens,
        text.characters,
        text.bytes,
        nats,
        token_logprobs,
        text.unknown.total(),
        unknown_bytes,
    )


def _logprobs(stream: Stream, chunk: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Log-probabilities of a chunk's tokens: of all, or of all but a stream's very first."""
    # Taken before the chunk is read, which may overwrite the prediction.
    first = [] if stream.logits is None else [stream.logits[chunk[0]]]
    predictions = stream.predict(chunk)
    rest = predictions[np.arange(chunk.size - 1), chunk[1:]]
    return np.concatenate([np.asarray(first, np.float32), rest])


def _chunks(
    stream: Stream, pieces: Iterable[str], size: TextSize
) -> Iterator[npt.NDArray[np.int64]]:
    for tokens in encode_pieces(stream.model.tokenizer, pieces, size):
        for start in range(0, len(tokens), _CHUNK):
            yield np.asarray(tokens[start : start + _CHUNK], np.int64)

"""Measure how well a stream predicts a text."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UsageError
from .encoding import encode_pieces
from .stream import Stream

__all__ = ["Score", "score_stream"]

_CHUNK = 256
"""Tokens predicted at a time."""


@dataclass(frozen=True)
class Score:
    """The cost of a text, each token predicted from all that precedes it.

    Attributes:
        tokens: Tokens predicted. The first token of a new stream has no context and is not
            counted.
        characters: Characters in those tokens.
        bytes: Bytes of UTF-8 in those tokens.
        nats: Sum of the tokens' negative natural-log probabilities.
        token_logprobs: The log-probability of each token, ``[tokens]``, if it was asked for.
    """

    tokens: int
    characters: int
    bytes: int
    nats: float
    token_logprobs: npt.NDArray[np.float32] | None = None

    @property
    def nats_per_token(self) -> float:
        """Cross-entropy, as training reports it."""
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        """The exponential of the loss."""
        return math.exp(min(self.nats_per_token, 700.0))

    @property
    def bits_per_char(self) -> float:
        """Bits per character: compares models whose tokens differ."""
        return self.nats / math.log(2) / max(self.characters, 1)

    @property
    def bits_per_byte(self) -> float:
        """Bits per byte of UTF-8: compares models with compressors."""
        return self.nats / math.log(2) / max(self.bytes, 1)

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON values."""
        return {
            "tokens": self.tokens,
            "characters": self.characters,
            "bytes": self.bytes,
            "nats": self.nats,
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
    token_bytes = stream.model.tokenizer.token_bytes
    byte_counts = np.asarray([len(token) for token in token_bytes])
    # Every byte begins a character but those of the form 10xxxxxx.
    char_counts = np.asarray([sum(byte & 0xC0 != 0x80 for byte in token) for token in token_bytes])
    tokens = characters = size = 0
    nats = 0.0
    kept: list[npt.NDArray[Any]] = []
    for chunk in _chunks(stream, pieces):
        logprobs = _logprobs(stream, chunk)
        predicted = chunk[chunk.size - logprobs.size :]
        tokens += logprobs.size
        characters += int(char_counts[predicted].sum())
        size += int(byte_counts[predicted].sum())
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
    return Score(tokens, characters, size, nats, token_logprobs)


def _logprobs(stream: Stream, chunk: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Log-probabilities of a chunk's tokens: of all, or of all but a stream's very first."""
    # Taken before the chunk is read, which may overwrite the prediction.
    first = [] if stream.logits is None else [stream.logits[chunk[0]]]
    predictions = stream.predict(chunk)
    rest = predictions[np.arange(chunk.size - 1), chunk[1:]]
    return np.concatenate([np.asarray(first, np.float32), rest])


def _chunks(stream: Stream, pieces: Iterable[str]) -> Iterator[npt.NDArray[np.int64]]:
    for tokens in encode_pieces(stream.model.tokenizer, pieces):
        for start in range(0, len(tokens), _CHUNK):
            yield np.asarray(tokens[start : start + _CHUNK], np.int64)

"""How well a stream predicts a text."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import UsageError
from .encoding import encode_pieces

if TYPE_CHECKING:
    from .session import Session

__all__ = ["Score", "score_stream"]

_CHUNK = 256
"""Tokens whose predictions are held at a time."""


@dataclass(frozen=True)
class Score:
    """What a text's tokens were worth, each predicted from all that came before it.

    Attributes:
        tokens: Tokens that were predicted. The first one of a new stream has nothing before it
            and is not among them.
        characters: Characters that these tokens make.
        bytes: Bytes of UTF-8 that they make.
        nats: Sum of the tokens' negative natural-log probabilities.
        token_logprobs: The log-probability of each, ``[tokens]``, where it was asked for.
    """

    tokens: int
    characters: int
    bytes: int
    nats: float
    token_logprobs: npt.NDArray[np.float32] | None = None

    @property
    def nats_per_token(self) -> float:
        """Cross-entropy loss, as training reports it."""
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        """The exponential of the loss."""
        return math.exp(min(self.nats_per_token, 700.0))

    @property
    def bits_per_char(self) -> float:
        """Bits for each character: compares models whose tokens differ."""
        return self.nats / math.log(2) / max(self.characters, 1)

    @property
    def bits_per_byte(self) -> float:
        """Bits for each byte of UTF-8: compares models and compressors."""
        return self.nats / math.log(2) / max(self.bytes, 1)

    def to_dict(self) -> dict[str, Any]:
        """All figures as a JSON value."""
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
    session: Session,
    pieces: Iterable[str],
    per_token: bool = False,
    progress: Callable[[int], object] | None = None,
) -> Score:
    """Read a text with a stream and add up what each token was worth.

    Memory does not depend on the length of the text, unless ``per_token`` is asked for.

    Args:
        session: The stream; it is advanced.
        pieces: The text, in pieces of any size.
        per_token: Keep the log-probability of each token.
        progress: Called with the number of tokens read, after each chunk.

    Returns:
        The score.

    Raises:
        UsageError: The text is too short for a prediction.
    """
    token_bytes = session.model.tokenizer.token_bytes
    lengths = np.asarray([len(token) for token in token_bytes])
    # Bytes that begin a character are all but those of the form 10xxxxxx.
    begins = np.asarray([sum(byte & 0xC0 != 0x80 for byte in token) for token in token_bytes])
    tokens = characters = size = 0
    nats = 0.0
    kept: list[npt.NDArray[Any]] = []
    for chunk in _chunks(session, pieces):
        before = session._logits
        logits = session._predict(chunk)
        if before is not None:
            first = np.asarray([before[chunk[0]]], np.float32)
        else:
            first = np.empty(0, np.float32)
        rest = logits[np.arange(chunk.size - 1), chunk[1:]]
        logprobs = np.concatenate([first, rest])
        predicted = chunk[chunk.size - logprobs.size :]
        tokens += logprobs.size
        characters += int(begins[predicted].sum())
        size += int(lengths[predicted].sum())
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
    together = np.concatenate(kept).astype(np.float32) if per_token else None
    return Score(tokens, characters, size, nats, together)


def _chunks(session: Session, pieces: Iterable[str]) -> Iterable[npt.NDArray[np.int64]]:
    for tokens in encode_pieces(session.model.tokenizer, pieces):
        for start in range(0, len(tokens), _CHUNK):
            yield np.asarray(tokens[start : start + _CHUNK], np.int64)

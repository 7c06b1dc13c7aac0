"""One stream of text: a model's state, and what reads and writes it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .errors import UsageError
from .sampler import Sampler, SamplingParams

if TYPE_CHECKING:
    from .model import Model

__all__ = ["LEARN_MODES", "Session", "UnknownCharacterWarning", "unknown_text"]

LEARN_MODES = ("read", "all", "none")


class UnknownCharacterWarning(UserWarning):
    """A text has characters that the tokenizer has never seen; they were left out."""


class Session:
    """One stream's state. Not to be used by two threads at once.

    Args:
        model: The model.
        learn: What the stream's memory stores: ``read``, what is fed and not what
            is generated; ``all``; or ``none``.

    Raises:
        UsageError: ``learn`` is none of these.
    """

    def __init__(self, model: Model, learn: str = "read") -> None:
        if learn not in LEARN_MODES:
            raise UsageError(f"learn is {learn!r}; it must be one of {', '.join(LEARN_MODES)}")
        self.model = model
        self.learn = learn
        self._state = model.engine.zero_state()
        self._decoder = model.tokenizer.decoder()
        self._logits: npt.NDArray[Any] | None = None
        self._position = 0

    @property
    def logits(self) -> npt.NDArray[Any] | None:
        """Log-probabilities of the next token, ``[V]``; ``None`` before anything is read."""
        return None if self._logits is None else self._logits.copy()

    @property
    def state(self) -> dict[str, npt.NDArray[Any]]:
        """A copy of every state tensor, by name, batch first."""
        values: dict[str, npt.NDArray[Any]] = self._state.read()
        return values

    @property
    def position(self) -> int:
        """Number of tokens read so far."""
        return self._position

    def feed(self, text: str) -> int:
        """Read a text; warn of characters that the tokenizer has never seen.

        Args:
            text: The text.

        Returns:
            The number of tokens read.
        """
        unknown = self.model.tokenizer.unknown(text)
        if unknown:
            warnings.warn(unknown_text(unknown), UnknownCharacterWarning, stacklevel=2)
        tokens = self.model.tokenizer.encode(text)
        self.feed_tokens(tokens)
        return len(tokens)

    def feed_tokens(self, tokens: list[int]) -> None:
        """Read tokens.

        Raises:
            UsageError: A number is no token of this model.
        """
        if not tokens:
            return
        array = np.asarray([tokens], np.int64)
        if array.min() < 0 or array.max() >= self.model.vocab_size:
            raise UsageError(
                f"tokens must lie between 0 and {self.model.vocab_size - 1}; "
                f"got {array.min()} to {array.max()}"
            )
        learn = 0.0 if self.learn == "none" else 1.0
        if array.shape[1] == 1:
            self._logits = self.model.engine.step(array[:, 0], self._state, learn)[0]
        else:
            # A copy, so that a session does not hold on to the logits of its whole prompt.
            self._logits = self.model.engine.prefill(array, self._state, learn)[0, -1].copy()
        self._position += len(tokens)

    def stream_tokens(self, sampler: Sampler, max_new_tokens: int) -> Iterator[int]:
        """Generate tokens one by one; each is read back before the next is drawn.

        Args:
            sampler: Chooses the tokens.
            max_new_tokens: How many to generate at most.

        Returns:
            An iterator over token numbers.

        Raises:
            UsageError: ``max_new_tokens`` is no whole number from 0.
        """
        if type(max_new_tokens) is not int or max_new_tokens < 0:
            raise UsageError(
                f"max_new_tokens is {max_new_tokens!r}; it must be a whole number, 0 or above"
            )
        return self._tokens(sampler, max_new_tokens)

    def _tokens(self, sampler: Sampler, max_new_tokens: int) -> Iterator[int]:
        if self._logits is None:
            # Nothing was read: start as if after the bundle's start token.
            self.feed_tokens([self.model.start_token])
        learn = 1.0 if self.learn == "all" else 0.0
        read = np.zeros(1, np.int64)
        for _ in range(max_new_tokens):
            assert self._logits is not None
            token = sampler.draw(self._logits)
            read[0] = token
            self._logits = self.model.engine.step(read, self._state, learn)[0]
            self._position += 1
            yield token

    def stream(
        self, params: SamplingParams | None = None, *, max_new_tokens: int = 200, **sampling: Any
    ) -> Iterator[str]:
        """Generate text piece by piece.

        A piece is never a part of a character: bytes wait until they are whole.

        Args:
            params: How to sample; the bundle's defaults when absent.
            max_new_tokens: How many tokens to generate at most.
            **sampling: Fields of :class:`SamplingParams` to change.

        Returns:
            An iterator over pieces of text, none of them empty.

        Raises:
            UsageError: An option has a value that can never work.
        """
        sampler = Sampler(self.model.sampling(params, **sampling))
        tokens = self.stream_tokens(sampler, max_new_tokens)
        return (piece for piece in map(self._decoder.push, tokens) if piece)

    def generate(
        self, params: SamplingParams | None = None, *, max_new_tokens: int = 200, **sampling: Any
    ) -> str:
        """Generate a text; the arguments are those of :meth:`stream`."""
        return "".join(self.stream(params, max_new_tokens=max_new_tokens, **sampling))


def unknown_text(characters: list[str]) -> str:
    """A sentence that names characters without a token."""
    shown = ", ".join(repr(character) for character in characters[:8])
    more = f" and {len(characters) - 8} more" if len(characters) > 8 else ""
    return (
        "the text has characters that this model has never seen, and they were left out: "
        f"{shown}{more}"
    )

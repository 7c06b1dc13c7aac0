"""Penalties for what was read or written before."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .logit_processors import Logits, Stateless
from .token_tail import TokenTail

__all__ = ["Penalties", "WindowPenalties", "repelled"]


class Penalties:
    """Makes tokens that occurred before less likely.

    Args:
        repetition: Divides the positive and multiplies the negative logits of tokens seen before.
        frequency: Subtracted once for each time that a token was generated.
        presence: Subtracted once if a token was generated at all.
        seen: Which tokens the stream has read or written, ``[V]``; owned by the stream.
    """

    def __init__(
        self, repetition: float, frequency: float, presence: float, seen: npt.NDArray[np.bool_]
    ) -> None:
        self._repetition, self._frequency, self._presence = repetition, frequency, presence
        self._seen = seen
        self._counts: dict[int, int] = {}

    def apply(self, logits: Logits) -> None:
        """Change logits ``[V]`` in place."""
        if self._repetition != 1:
            logits[self._seen] = repelled(logits[self._seen], self._repetition)
        if self._counts and (self._frequency or self._presence):
            tokens = np.fromiter(self._counts, np.int64, len(self._counts))
            counts = np.fromiter(self._counts.values(), np.float64, len(self._counts))
            logits[tokens] -= self._frequency * counts + self._presence

    def accept(self, token: int) -> None:
        """Count a token."""
        self._seen[token] = True
        self._counts[token] = self._counts.get(token, 0) + 1

    def snapshot(self) -> Any:
        """Pairs of a token and how often it was generated."""
        return [[token, count] for token, count in self._counts.items()]

    def restore(self, value: Any) -> None:
        """Return to what :meth:`snapshot` returned."""
        counts = {int(token): int(count) for token, count in value}
        if not all(0 <= token < self._seen.size for token in counts):
            raise ValueError("the penalties count a token that does not exist")
        self._counts = counts


class WindowPenalties(Stateless):
    """Makes tokens less likely that occur among the last of a stream.

    Args:
        repetition: Divides the positive and multiplies the negative logits of these tokens.
        frequency: Subtracted once for each time that a token occurs.
        presence: Subtracted once if it occurs at all.
        window: How many tokens count.
        tail: The last tokens that the stream has read or written; owned by the sampler.
    """

    def __init__(
        self, repetition: float, frequency: float, presence: float, window: int, tail: TokenTail
    ) -> None:
        self._repetition, self._frequency, self._presence = repetition, frequency, presence
        self._window, self._tail = window, tail

    def apply(self, logits: Logits) -> None:
        """Change logits ``[V]`` in place."""
        counts = np.bincount(self._tail.tokens[-self._window :], minlength=logits.size)
        tokens = np.flatnonzero(counts)
        logits[tokens] = repelled(logits[tokens], self._repetition)
        logits[tokens] -= self._frequency * counts[tokens] + self._presence


def repelled(logits: Logits, penalty: float) -> Logits:
    """Logits after the repetition penalty."""
    return np.asarray(logits * np.where(logits > 0, 1 / penalty, penalty))

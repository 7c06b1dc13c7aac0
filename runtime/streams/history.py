"""Which tokens a stream has read or written, and the last of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from ..sampling.params import LONGEST_BAD_WORD

__all__ = ["REMEMBERED", "TokenHistory"]

REMEMBERED = LONGEST_BAD_WORD
"""Tokens that a stream remembers, so that a bad word that begins in a prompt is seen."""

_RING = 2 * REMEMBERED
"""Twice as many, so that :meth:`TokenHistory.append` overwrites no visible entry."""


class TokenHistory:
    """The tokens of a stream, in memory that does not grow with it.

    Args:
        vocab_size: Number of tokens.

    Attributes:
        position: Tokens read and written.
        seen: Which tokens were read or written, ``[V]``.
    """

    def __init__(self, vocab_size: int) -> None:
        self.position = 0
        self.seen = np.zeros(vocab_size, np.bool_)
        self._ring = np.zeros(_RING, np.int64)
        self._first = 0
        self._newly_seen: int | list[int] | None = None

    @property
    def recent(self) -> tuple[int, ...]:
        """The last tokens, oldest first."""
        places = np.arange(max(self._first, self.position - REMEMBERED), self.position)
        return tuple(self._ring[places % _RING].tolist())

    def append(self, token: int) -> None:
        """Note a token."""
        self._ring[self.position % _RING] = token
        if not self.seen[token]:
            self._newly_seen = token
            self.seen[token] = True
        self.position += 1

    def extend(self, tokens: list[int]) -> None:
        """Note tokens."""
        end = self.position + len(tokens)
        ring = self._ring.copy()  # an undo point holds the old one
        for place, token in enumerate(reversed(tokens[-REMEMBERED:]), 1):
            ring[(end - place) % _RING] = token
        self._ring = ring
        new = [token for token in set(tokens) if not self.seen[token]]
        self._newly_seen = new
        if new:
            self.seen[new] = True
        self.position = end

    def undo_point(self) -> Callable[[], None]:
        """Return what takes back the next call of :meth:`append` or :meth:`extend`."""
        position, ring, self._newly_seen = self.position, self._ring, None

        def undo() -> None:
            self.position, self._ring = position, ring
            if self._newly_seen is not None:
                self.seen[self._newly_seen] = False

        return undo

    def restore(self, position: int, seen: npt.NDArray[np.bool_], recent: Sequence[int]) -> None:
        """Return to another moment, in place: others hold :attr:`seen`."""
        recent = recent[-REMEMBERED:]
        self._first = position - len(recent)
        self._ring[np.arange(self._first, position) % _RING] = recent
        self.seen[...] = seen
        self.position = position

"""The last tokens of a stream, as options that look back see them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

__all__ = ["REACH", "TokenTail"]

REACH = 4096
"""Tokens that an option may look back."""


class TokenTail:
    """The last :data:`REACH` tokens, in memory that does not grow.

    Args:
        tokens: What was read before.
    """

    def __init__(self, tokens: Iterable[int] = ()) -> None:
        self._buffer: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._end = 0
        self.restore(tokens)

    @property
    def tokens(self) -> npt.NDArray[np.int64]:
        """The tokens, oldest first: a view that the next :meth:`accept` leaves alone."""
        tokens: npt.NDArray[np.int64] = self._buffer[max(0, self._end - REACH) : self._end]
        return tokens

    def accept(self, token: int) -> None:
        """Append a token."""
        if self._end == self._buffer.size:
            self.restore(self.tokens)  # into another array: an undo point holds the old one
        self._buffer[self._end] = token
        self._end += 1

    def undo_point(self) -> Callable[[], None]:
        """Return what brings the tail back to this moment."""
        buffer, end = self._buffer, self._end

        def undo() -> None:
            self._buffer, self._end = buffer, end

        return undo

    def restore(self, tokens: Iterable[int]) -> None:
        """Hold other tokens."""
        kept = np.fromiter(tokens, np.int64)[-REACH:]
        self._buffer = np.zeros(2 * REACH, np.int64)
        self._buffer[: kept.size] = kept
        self._end = kept.size

"""Who writes next: a bounded queue that is fair between clients."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass

from .errors import RequestError
from .limits import Limits

__all__ = ["Line"]


@dataclass(eq=False)
class _Waiting:
    client: str
    count: int
    admitted: asyncio.Future[None]


class Line:
    """Hands out rows of a model. Who holds the fewest comes first; among equals, who came first.

    Args:
        limits: How many rows there are, and how many may be waited for.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._held: Counter[str] = Counter()
        self._waiting: list[_Waiting] = []

    @property
    def rows(self) -> int:
        """Rows that are held."""
        return self._held.total()

    @property
    def waiting(self) -> int:
        """Rows that are waited for."""
        return sum(one.count for one in self._waiting if not one.admitted.done())

    async def enter(self, client: str, count: int) -> None:
        """Wait for some rows.

        Raises:
            RequestError: Too many are waiting.
        """
        if not self._waiting and self.rows + count <= self._limits.rows:
            self._held[client] += count
            return
        if self.waiting + count > self._limits.waiting:
            raise RequestError(
                f"the server is busy: {self.rows} texts are being written and {self.waiting} wait; "
                "try again later",
                429,
                code="busy",
                retry_after=1,
            )
        one = _Waiting(client, count, asyncio.get_running_loop().create_future())
        self._waiting.append(one)
        try:
            await one.admitted
        except asyncio.CancelledError:
            if one.admitted.cancelled():
                self._admit()
            else:  # admitted in the same turn of the loop
                self.leave(client, count)
            raise

    def leave(self, client: str, count: int = 1) -> None:
        """Give rows back."""
        self._held[client] -= count
        if self._held[client] <= 0:
            del self._held[client]
        self._admit()

    def _admit(self) -> None:
        # Who was cancelled in this turn of the loop has not run yet to leave the line.
        self._waiting = [one for one in self._waiting if not one.admitted.done()]
        while self._waiting:
            one = min(self._waiting, key=lambda waiting: self._held[waiting.client])
            if self.rows + one.count > self._limits.rows:
                return
            self._waiting.remove(one)
            self._held[one.client] += one.count
            one.admitted.set_result(None)

"""One text that is being written, and the box in which a request finds it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import NamedTuple

from ..errors import RilletError
from ..sampling.params import SamplingParams
from ..streams.chorus import Voice
from ..streams.generation import GeneratedToken
from ..streams.session import Session

__all__ = ["Inbox", "Job", "Piece"]


class Piece(NamedTuple):
    """What a text has gained.

    Attributes:
        choice: Which text of the request.
        tokens: The tokens that it has gained.
        finish_reason: Why it ended; ``None`` while it goes on.
        error: What ended it.
    """

    choice: int
    tokens: list[GeneratedToken]
    finish_reason: str | None = None
    error: RilletError | None = None

    @property
    def is_last(self) -> bool:
        """Whether the text has ended."""
        return self.finish_reason is not None or self.error is not None


class Inbox:
    """Pieces of a request's texts, in the event loop.

    Args:
        eager: Whether every piece wakes the reader, or only the end of a text.
    """

    def __init__(self, eager: bool) -> None:
        self._eager = eager
        self._pieces: list[Piece] = []
        self._waiter: asyncio.Future[None] | None = None

    def put(self, piece: Piece) -> None:
        """Add a piece; called in the event loop."""
        self._pieces.append(piece)
        if self._waiter is not None and (self._eager or piece.is_last):
            waiter, self._waiter = self._waiter, None
            if not waiter.done():
                waiter.set_result(None)

    async def take(self) -> list[Piece]:
        """All pieces since the last call, at least one."""
        if not self._pieces:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        pieces, self._pieces = self._pieces, []
        return pieces


@dataclass(eq=False)
class Job:
    """A text of a request.

    Attributes:
        session: The stream that writes it.
        params: How it samples.
        inbox: Where its pieces go.
        index: Which text of the request it is.
        client: Whose it is.
        exact: Whether the stream goes on after the text.
        voice: The stream and its generation, once that has begun.
        is_cancelled: Whether nobody wants it any more; the writing thread looks at every token.
        ended: Set once no thread uses the session any more.
    """

    session: Session
    params: SamplingParams
    inbox: Inbox
    index: int
    client: str
    exact: bool
    voice: Voice | None = None
    is_cancelled: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def begin(self) -> None:
        """Begin the generation: what takes time, such as compiling a grammar, happens here."""
        stream, generation = self.session.lend(self.params, {})
        self.voice = Voice(stream, generation, self.exact)

"""Text as it is generated: an iterator, an asynchronous iterator, and what it can tell."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .generation import GeneratedToken, Generation

if TYPE_CHECKING:
    from .session import Session

__all__ = ["GenerationStats", "TextStream", "TokenStream"]


@dataclass(frozen=True)
class GenerationStats:
    """What a run of writing took.

    Attributes:
        tokens: Tokens generated.
        first_token_seconds: From the first request to the first token; ``None`` without one.
        seconds: Spent in generating, without the time that the reader took.
        finish_reason: ``length``, ``stop``, ``choice``, ``grammar``, ``cancelled``, or ``None``
            before the end.
    """

    tokens: int
    first_token_seconds: float | None
    seconds: float
    finish_reason: str | None


class TokenStream(Iterator[GeneratedToken]):
    """Generated tokens, one at a time, each read back by the stream before it is given out.

    Args:
        session: The stream that writes.
        generation: What it writes with.
    """

    def __init__(self, session: Session, generation: Generation) -> None:
        self._session, self._generation = session, generation
        self._cancelled = self._reported = False
        self._tokens = 0
        self._seconds = 0.0
        self._first: float | None = None

    def __iter__(self) -> TokenStream:
        return self

    def __next__(self) -> GeneratedToken:
        generation = self._generation
        if self._cancelled or generation.finish_reason is not None:
            self._report()
            raise StopIteration
        began = time.perf_counter()
        made = self._session._write(generation)
        self._seconds += time.perf_counter() - began
        self._tokens += 1
        if self._first is None:
            self._first = self._seconds
        return made

    def cancel(self) -> None:
        """End the stream after the token that is being made; any thread may call this.

        What was held back stays with the session: :meth:`Session.resume` goes on as if nothing
        had happened.
        """
        self._cancelled = True

    @property
    def finish_reason(self) -> str | None:
        """Why it ended, as in :class:`GenerationStats`; ``None`` before."""
        return self._generation.finish_reason or ("cancelled" if self._cancelled else None)

    @property
    def stop_string(self) -> str | None:
        """The stop string that ended it."""
        return self._generation.stop_string

    @property
    def stats(self) -> GenerationStats:
        """What it took so far."""
        return GenerationStats(self._tokens, self._first, self._seconds, self.finish_reason)

    def _report(self) -> None:
        if not self._reported:
            self._reported = True
            self._session.model._report(self.stats)


class TextStream(Iterator[str]):
    """Generated text, piece by piece.

    A piece is never empty, never a part of a character, and never the beginning of a stop
    string. ``async for`` works as well: steps then run in a thread.

    Args:
        tokens: Where the tokens come from.
        on_text: Called with each piece before it is given out.
    """

    def __init__(self, tokens: TokenStream, on_text: Callable[[str], object] | None = None) -> None:
        self._tokens = tokens
        self._on_text = on_text

    def __iter__(self) -> TextStream:
        return self

    def __next__(self) -> str:
        while True:
            text = next(self._tokens).text
            if text:
                if self._on_text is not None:
                    self._on_text(text)
                return text

    def __aiter__(self) -> AsyncIterator[str]:
        return self._pieces()

    async def _pieces(self) -> AsyncIterator[str]:
        import asyncio  # takes a while, and few need it

        while (piece := await asyncio.to_thread(next, self, None)) is not None:
            yield piece

    def cancel(self) -> None:
        """End the stream after the token that is being made; see :meth:`TokenStream.cancel`."""
        self._tokens.cancel()

    @property
    def finish_reason(self) -> str | None:
        """Why it ended, as in :class:`GenerationStats`; ``None`` before."""
        return self._tokens.finish_reason

    @property
    def stop_string(self) -> str | None:
        """The stop string that ended it."""
        return self._tokens.stop_string

    @property
    def stats(self) -> GenerationStats:
        """What it took so far."""
        return self._tokens.stats

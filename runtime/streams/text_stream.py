"""Text as it is generated: an iterator, synchronous or asynchronous, and its figures."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator

from ..sampling.stats import GenerationStats
from .generation import GeneratedToken, Generation

__all__ = ["TextStream", "TokenStream"]


class TokenStream(Iterator[GeneratedToken]):
    """Generated tokens, one at a time, each read back by the stream before it is returned.

    Args:
        generation: The generation.
        next_token: Generates its next token.
        report: Called with the figures at the end.
    """

    def __init__(
        self,
        generation: Generation,
        next_token: Callable[[Generation], GeneratedToken],
        report: Callable[[GenerationStats], object],
    ) -> None:
        self._generation = generation
        self._next_token, self._report = next_token, report
        self._cancelled = self._reported = False
        self._tokens = 0
        self._seconds = 0.0
        self._first: float | None = None

    def __iter__(self) -> TokenStream:
        return self

    def __next__(self) -> GeneratedToken:
        if self._cancelled or self._generation.finish_reason is not None:
            if not self._reported:
                self._reported = True
                self._report(self.stats)
            raise StopIteration
        began = time.perf_counter()
        token = self._next_token(self._generation)
        self._seconds += time.perf_counter() - began
        self._tokens += 1
        if self._first is None:
            self._first = self._seconds
        return token

    def cancel(self) -> None:
        """End after the token that is under way; any thread may call this.

        Text that is held back stays with the session: :meth:`Session.resume` continues as if
        nothing had happened.
        """
        self._cancelled = True

    @property
    def seed(self) -> int | None:
        """The seed in use, drawn if none was given: the same seed gives the same text."""
        return self._generation.params.seed

    @property
    def finish_reason(self) -> str | None:
        """Why it ended, as in :class:`GenerationStats`; ``None`` before the end."""
        return self._generation.finish_reason or ("cancelled" if self._cancelled else None)

    @property
    def stop_string(self) -> str | None:
        """The stop string that ended it."""
        return self._generation.stop_string

    @property
    def stats(self) -> GenerationStats:
        """The figures so far."""
        return GenerationStats(self._tokens, self._first, self._seconds, self.finish_reason)


class TextStream(Iterator[str]):
    """Generated text, piece by piece.

    A piece is never empty, never part of a character, and never the beginning of a stop
    string. ``async for`` works too; the steps then run in a thread.

    Args:
        tokens: Where the tokens come from.
        on_text: Called with each piece before it is returned.
    """

    def __init__(self, tokens: TokenStream, on_text: Callable[[str], object] | None = None) -> None:
        self.tokens = tokens
        """The tokens behind the text; take from one or the other."""
        self._on_text = on_text

    def __iter__(self) -> TextStream:
        return self

    def __next__(self) -> str:
        while True:
            text = next(self.tokens).text
            if text:
                if self._on_text is not None:
                    self._on_text(text)
                return text

    def __aiter__(self) -> AsyncIterator[str]:
        return self._pieces()

    async def _pieces(self) -> AsyncIterator[str]:
        import asyncio  # slow to import, and few need it

        while (piece := await asyncio.to_thread(next, self, None)) is not None:
            yield piece

    def cancel(self) -> None:
        """End after the token that is under way; see :meth:`TokenStream.cancel`."""
        self.tokens.cancel()

    @property
    def seed(self) -> int | None:
        """The seed in use, drawn if none was given: the same seed gives the same text."""
        return self.tokens.seed

    @property
    def finish_reason(self) -> str | None:
        """Why it ended, as in :class:`GenerationStats`; ``None`` before the end."""
        return self.tokens.finish_reason

    @property
    def stop_string(self) -> str | None:
        """The stop string that ended it."""
        return self.tokens.stop_string

    @property
    def stats(self) -> GenerationStats:
        """The figures so far."""
        return self.tokens.stats

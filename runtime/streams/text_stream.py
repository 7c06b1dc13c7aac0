"""Text as it is generated: an iterator, synchronous or asynchronous, and its figures."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator

from ..errors import UsageError
from ..sampling.stats import GenerationStats
from ..tokenizer import shown, text_bytes
from ..uncopied import Uncopied
from .draft import Writer
from .generation import GeneratedToken, Generation

__all__ = ["TextStream", "TokenStream", "delivered"]

_INSTEAD = "fork its session and call resume() of the twin"


def delivered(token: GeneratedToken) -> GeneratedToken:
    """A token as its reader gets it: with text that can be printed, and the bytes behind it."""
    return token._replace(text=shown(token.text), data=text_bytes(token.text))


class TokenStream(Uncopied, Iterator[GeneratedToken]):
    """Generated tokens, one at a time, each read back by the stream before it is returned.

    Args:
        generation: The generation.
        writer: What generates its tokens.
        report: Called with the figures at the end.
    """

    instead = _INSTEAD

    def __init__(
        self,
        generation: Generation,
        writer: Writer,
        report: Callable[[GenerationStats], object],
    ) -> None:
        self.generation = generation
        self._writer, self._report = writer, report
        self._cancelled = self._reported = False
        # A token that an earlier stream left behind is not of this one.
        self._tokens, self._counted = 0, generation.outbox
        self._seconds = 0.0
        self._first: float | None = None

    def __iter__(self) -> TokenStream:
        return self

    def __next__(self) -> GeneratedToken:
        waiting = self.peek()
        if waiting is None:
            raise StopIteration
        token, generation = delivered(waiting), self.generation
        if generation.outbox is not waiting:
            raise self.refusal()
        # Nothing is called from here on, so no interrupt loses the token, no thread gets it too.
        generation.outbox = None
        return token

    def refusal(self) -> UsageError:
        """The error for a thread whose token another thread has taken."""
        return self._writer.guard.refusal()

    def peek(self) -> GeneratedToken | None:
        """Generate the next token and leave it in the generation's outbox; ``None`` at the end."""
        token = self.generation.outbox
        if token is None:
            token = self._generate()
        if token is not None and token is not self._counted:
            # Counted here, and not where it was generated: an interrupt may have come between.
            self._counted = token
            self._tokens += 1
        return token

    def _generate(self) -> GeneratedToken | None:
        """Leave the next token in the outbox, and return it; ``None`` at the end."""
        generation = self.generation
        if self._cancelled or generation.finish_reason is not None:
            if not self._reported:
                self._reported = True
                self._report(self.stats)
            return None
        # The first token is timed.
        ahead = None if self._first is None else self._writer.take_ahead(generation)
        if ahead is not None:
            return ahead
        began = time.perf_counter()
        self._writer.next_token(generation)
        self._seconds += time.perf_counter() - began
        if self._first is None:
            self._first = self._seconds
        token = generation.outbox
        if token is None and generation.finish_reason is None:
            raise self.refusal()
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
        return self.generation.params.seed

    @property
    def finish_reason(self) -> str | None:
        """Why it ended, as in :class:`GenerationStats`; ``None`` before the end."""
        return self.generation.finish_reason or ("cancelled" if self._cancelled else None)

    @property
    def stop_string(self) -> str | None:
        """The stop string that ended it."""
        return self.generation.stop_string

    @property
    def stats(self) -> GenerationStats:
        """The figures so far."""
        return GenerationStats(self._tokens, self._first, self._seconds, self.finish_reason)


class TextStream(Uncopied, Iterator[str]):
    """Generated text, piece by piece.

    A piece is never empty, never part of a character, and never the beginning of a stop
    string. ``async for`` works too; the steps then run in a thread.

    Args:
        tokens: Where the tokens come from.
        on_text: Called with each piece before it is returned.
    """

    instead = _INSTEAD

    def __init__(self, tokens: TokenStream, on_text: Callable[[str], object] | None = None) -> None:
        self.tokens = tokens
        """The tokens behind the text; take from one or the other."""
        self._on_text = on_text

    def __iter__(self) -> TextStream:
        return self

    def __next__(self) -> str:
        waiting = self._peek()
        if waiting is None:
            raise StopIteration
        text, generation = shown(waiting), self.tokens.generation
        token = generation.outbox
        if (generation.backlog if token is None else token.text) is not waiting:
            raise self.tokens.refusal()
        if self._on_text is not None:
            generation.outbox, generation.backlog = None, ""
            self._on_text(text)
        # Nothing is called from here on, so no interrupt loses the text.
        generation.outbox, generation.backlog = None, ""
        return text

    def keep_all(self) -> str:
        """Generate to the end, and return the text, which the generation keeps as well.

        Whoever returns it drops :attr:`.Generation.kept`; what an interrupt or an error cuts off
        waits there for the next reader.
        """
        generation = self.tokens.generation
        while (waiting := self._peek()) is not None:
            # Nothing is called from one place to the other, so no interrupt loses or doubles it.
            generation.kept += [waiting]
            generation.outbox, generation.backlog = None, ""
        return "".join(map(shown, generation.kept))

    def as_bytes(self) -> Iterator[bytes]:
        """The text as UTF-8, piece by piece; take from this or from the stream.

        A model that was trained on any bytes may write some that are no text. They are U+FFFD in
        the stream's text, and themselves here.
        """
        generation = self.tokens.generation
        while (text := self._peek()) is not None:
            data, token = text_bytes(text), generation.outbox
            if (generation.backlog if token is None else token.text) is not text:
                raise self.tokens.refusal()
            generation.outbox, generation.backlog = None, ""
            if self._on_text is not None:
                self._on_text(shown(text))
            yield data

    def take_back(self, data: bytes) -> None:
        """Keep the end of a text that its reader did not get: :meth:`Session.resume` begins there.

        Args:
            data: What :meth:`as_bytes` gave, from some byte on.
        """
        generation = self.tokens.generation
        generation.kept = [data.decode("utf-8", "surrogateescape"), *generation.kept]

    def _peek(self) -> str | None:
        """Generate until there is text, and leave it in the outbox; ``None`` at the end."""
        generation = self.tokens.generation
        while (token := self.tokens.peek()) is not None:
            if token.text:
                return token.text
            if generation.outbox is token:  # and not one that another thread has drawn since
                generation.outbox = None
        return generation.backlog or None  # nothing follows that would carry it

    def __aiter__(self) -> AsyncIterator[str]:
        return self._pieces()

    async def _pieces(self) -> AsyncIterator[str]:
        import asyncio  # slow to import, and few need it

        while True:
            step = asyncio.ensure_future(asyncio.to_thread(self._peek))
            try:
                text = await asyncio.shield(step)
            except asyncio.CancelledError:
                # The thread ends its step; what it generates stays in the outbox.
                while not step.done():
                    with contextlib.suppress(asyncio.CancelledError):
                        await asyncio.wait([step])
                if not step.cancelled():
                    step.exception()  # looked at, so that asyncio does not report it as forgotten
                raise
            if text is None:
                return
            yield next(self)

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

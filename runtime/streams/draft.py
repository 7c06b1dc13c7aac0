"""Tokens that are drawn ahead of their reader: many in one call of the engine.

A draft is made on a copy of the stream, so nothing that a user can see changes until a token is
taken. Whoever looks at the stream, or changes it, calls :meth:`Writer.settle` first: the stream
then reads the tokens that were taken, and the others are forgotten. So each token is as if it had
been drawn when it was asked for.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..engines.base import Drafter, EngineState
from ..errors import EngineError
from .generation import GeneratedToken, Generation
from .stream import Stream
from .thread_guard import ThreadGuard, exclusive

__all__ = ["Draft", "Writer"]

_FIRST, _GROWTH, _LONGEST = 4, 8, 256
"""Tokens of the first draft, how many times as long the next is, and tokens of the longest."""

_PATIENCE = 0.005
"""Seconds that a draft may take: a reader waits for it, and so does Ctrl-C."""

_SHY = 16
"""Tokens that are drawn one at a time after somebody has looked into a draft."""


@dataclass(frozen=True)
class _Outcome:
    """Where a stream stands after some tokens.

    Attributes:
        tokens: What the reader gets for them.
        state: The engine's state.
        logits: The prediction, ``[V]``.
        pending: Bytes of an incomplete character.
        generation: The generation.
    """

    tokens: list[GeneratedToken]
    state: EngineState
    logits: npt.NDArray[Any]
    pending: bytes
    generation: Generation


@dataclass(eq=False)
class Draft:
    """Tokens that were drawn ahead.

    Attributes:
        generation: Whose they are; it stands before the first.
        tokens: What its reader gets.
        start: The position before the first.
        taken: How many the reader has taken: never the last, which makes the stream catch up.
        last: Place of the last.
    """

    generation: Generation
    outcome: _Outcome
    start: int
    taken: int = 0

    def __post_init__(self) -> None:
        self.tokens = self.outcome.tokens
        self.last = len(self.tokens) - 1


class Writer:
    """Generates for one stream: ahead of its reader, as long as nobody looks at the stream.

    Args:
        stream: The stream.
        guard: Who may use it.

    Attributes:
        stream: The stream; before the draft, if there is one.
        draft: What was drawn ahead.
    """

    def __init__(self, stream: Stream, guard: ThreadGuard) -> None:
        self.stream, self.guard = stream, guard
        self.draft: Draft | None = None
        self._singles, self._length = 1, _FIRST
        self._pace = _PATIENCE / _FIRST

    @property
    def position(self) -> int:
        """Number of tokens read and written, with those of the draft that were taken."""
        draft = self.draft
        return self.stream.history.position if draft is None else draft.start + draft.taken

    @exclusive
    def next_token(self, generation: Generation) -> None:
        """Leave the next token in a generation's outbox: all of it happens, or nothing."""
        if generation.outbox is not None:  # another thread has come before
            return
        draft = self.draft
        if draft is None or draft.generation is not generation:
            if draft is not None:
                self.settle()
            draft = self.draft = self._drafted(generation)
        if draft is None:
            self.stream.next_token(generation)
        elif self.take_ahead(generation) is None:
            self._catch_up(draft, draft.outcome, delivered=True)

    def take_ahead(self, generation: Generation) -> GeneratedToken | None:
        """Leave the next token of a draft in the outbox, if there is one before its last.

        It takes no lock: nothing is called once the thread is known to be alone, so no interrupt
        and no other thread comes between.
        """
        draft, guard = self.draft, self.guard
        if (
            draft is None
            or draft.generation is not generation
            or draft.taken >= draft.last
            or generation.outbox is not None
            or (guard.inside and not guard.is_mine())
        ):
            return None
        generation.outbox = token = draft.tokens[draft.taken]
        draft.taken += 1
        return token

    @exclusive
    def settle(self) -> Stream:
        """Return the stream, where its reader is: what was drawn ahead of him is forgotten."""
        draft = self.draft
        if draft is not None and draft.taken:
            taken = draft.tokens[: draft.taken]
            self._catch_up(draft, self._reread(draft.generation, taken))
        is_shy = draft is not None or self._singles > 1
        self._singles, self._length = _SHY if is_shy else 1, _FIRST
        self.draft = None
        return self.stream

    def _drafted(self, generation: Generation) -> Draft | None:
        """Draw tokens ahead, if that can be done and is worth it."""
        if self._singles > 0:
            self._singles -= 1
            return None
        stream, drafter = self.stream, self.stream.model.drafter
        if drafter is None or stream.logits is None or not generation.is_simple:
            return None
        affordable = max(int(_PATIENCE / self._pace), _FIRST)
        count = min(self._length, affordable, generation.limit - generation.count)
        if count < 2:
            return None
        self._length = min(_GROWTH * self._length, _LONGEST)
        began = time.perf_counter()
        try:
            draft = Draft(generation, self._draw(drafter, generation, count), self.position)
        except EngineError:
            # One token at a time leads to where it fails, and says so there.
            self._singles = _LONGEST
            return None
        self._pace = min(self._pace, (time.perf_counter() - began) / count)  # at best
        return draft

    def _draw(self, drafter: Drafter, generation: Generation, count: int) -> _Outcome:
        stream = self.stream
        assert stream.logits is not None
        state = stream.model.spare_state()
        tokens, logprobs, logits = drafter.draft(
            state,
            stream.state,
            stream.logits,
            generation.sampler.upcoming(count),
            generation.drawing,
            stream.learn_written,
        )
        written, pending, after = self._accepted(generation, tokens, logprobs)
        if len(written) < count:  # a stop string has ended the text
            return self._reread(generation, written)
        return _Outcome(written, state, logits, pending, after)

    def _accepted(
        self, generation: Generation, tokens: list[int], logprobs: list[float]
    ) -> tuple[list[GeneratedToken], bytes, Generation]:
        """Let a twin of a generation accept tokens, up to its end."""
        twin, decoder = generation.twin(), self.stream.decoder_twin()
        written = twin.accept_all(tokens, logprobs, map(decoder.push, tokens))
        return written, decoder.pending, twin

    def _reread(self, generation: Generation, tokens: list[GeneratedToken]) -> _Outcome:
        """Where the stream stands after the first tokens of a draft."""
        stream, model = self.stream, self.stream.model
        numbers = [token.token for token in tokens]
        written, pending, after = self._accepted(
            generation, numbers, [token.logprob for token in tokens]
        )
        state, array = model.spare_state(), np.asarray([numbers], np.int64)
        state.copy_row(0, stream.state, 0)
        if len(numbers) > 1:
            model.engine.prefill(array[:, :-1], state, stream.learn_written, last=True)
        logits = model.engine.step(array[:, -1], state, stream.learn_written)[0]
        return _Outcome(written, state, logits, pending, after)

    def _catch_up(self, draft: Draft, outcome: _Outcome, delivered: bool = False) -> None:
        """Bring the stream where its reader is: all of it happens, or nothing.

        Args:
            draft: What was drawn ahead.
            outcome: Where the stream stands then.
            delivered: Leave the last token in the outbox as well.
        """
        stream, generation = self.stream, draft.generation
        undo, before, state = stream.undo_point(), generation.twin(), stream.state
        try:
            tokens = [token.token for token in outcome.tokens]
            stream.adopt(outcome.state, tokens, outcome.logits, outcome.pending)
            generation.become(outcome.generation)
            if delivered:
                generation.outbox = outcome.tokens[-1]
            self.draft = None
        except BaseException:
            undo()
            generation.become(before)
            self.draft = draft
            raise
        stream.model.give_back(state)

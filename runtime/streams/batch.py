"""Many streams, stepped together in one call of the engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UsageError
from ..loaded import LoadedModel
from ..sampling.params import SamplingParams
from ..sampling.sampler import RowError
from ..sampling.stats import GenerationStats
from ..uncopied import Uncopied
from .encoding import checked_tokens
from .generation import GeneratedToken, Generation, draw_rows
from .session import Session
from .stream import Stream
from .text_stream import delivered
from .thread_guard import ThreadGuard, exclusive

__all__ = ["Batch"]


@dataclass(eq=False)
class _Row:
    """A session of the batch, with what it has lent and the figures of its generation."""

    session: Session
    stream: Stream
    generation: Generation
    tokens: int = 0
    seconds: float = 0.0
    first_token_seconds: float | None = None

    @property
    def stats(self) -> GenerationStats:
        return GenerationStats(
            self.tokens, self.first_token_seconds, self.seconds, self.generation.finish_reason
        )


class Batch(Uncopied):
    """Sessions that step together; they may join and leave between any two steps.

    While a session is in a batch, its state is a row of the batch's, and the session's own
    methods work again once it has left. Predictions equal those of a session alone to within
    1e-5: engines multiply one row and several in different orders, so the last bits differ, and
    the same seed gives the same text unless two tokens are that close.

    Args:
        model: The sessions' model.

    Raises:
        UsageError: The engine computes the rows of a batch from one another.
    """

    instead = "let its sessions leave, and put a fork of each into another batch"

    def __init__(self, model: LoadedModel) -> None:
        if not model.engine.independent_rows:
            raise UsageError(
                f"{model.bundle.path} is dynamic int8, which takes one scale for all rows of a "
                f"batch on {model.engine.provider}: sessions would change one another; step them "
                "alone, load the model with provider='cpu', or quantize it with --method static"
            )
        self.model = model
        self.guard = ThreadGuard("batch")
        self._state = model.engine.zero_state(0)
        self._rows: list[_Row] = []
        self._outbox: dict[Session, GeneratedToken] | None = None
        self.failed: Session | None = None
        """The session whose constraints made :meth:`write` fail last."""

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Session]:
        return iter([row.session for row in self._rows])

    def __contains__(self, session: Session) -> bool:
        return any(row.session is session for row in self._rows)

    # Joining and leaving.

    @exclusive
    def join(self, session: Session, params: SamplingParams | None = None, **sampling: Any) -> None:
        """Add a session, to write from where it stands.

        Args:
            session: A session of the batch's model.
            params: How it samples; the bundle's defaults when absent.
            **sampling: Fields of :class:`SamplingParams` to change.

        Raises:
            UsageError: The session is of another model, closed, or in a batch.
        """
        if not isinstance(session, Session):
            raise UsageError(f"the session is {session!r}; make one with model.session()")
        if session.model is not self.model:
            raise UsageError("the session is of another model than the batch; make it with its own")
        stream, generation = session.lend(params, sampling)
        place = len(self._rows)
        try:
            self._state.resize(place + 1)
            self._state.copy_row(place, stream.state, 0)
            stream.lend("is in a batch; take it out with batch.leave(session)")
            self._rows.append(_Row(session, stream, generation))
        except BaseException:
            if len(self._rows) == place:
                if stream.is_lent:
                    stream.take_back(self._state, place)
                self._state.resize(place)
            raise

    @exclusive
    def leave(self, session: Session) -> None:
        """Return a session's state; it continues alone from where it stands."""
        row = self._rows[self._place(session)]
        self._leave(session)
        if self._outbox and session in self._outbox:
            row.generation.outbox = self._outbox.pop(session)

    def _leave(self, session: Session) -> None:
        place, last = self._place(session), len(self._rows) - 1
        row, rows = self._rows[place], self._rows[:last]
        if place != last:
            rows[place] = self._rows[last]

        def release() -> None:
            if row.stream.is_lent:
                row.stream.take_back(self._state, place)
            if place != last and self._state.batch > last:
                self._state.copy_row(place, self._state, last)
            self._rows = rows
            self._state.resize(last)

        try:
            release()
        except BaseException:
            release()  # half of it would be worse than all of it
            raise

    def _place(self, session: Session) -> int:
        for place, row in enumerate(self._rows):
            if row.session is session:
                return place
        raise UsageError("the session is not in this batch; let it in with batch.join(session)")

    # Steps.

    @exclusive
    def step(self, tokens: Mapping[Session, int]) -> dict[Session, npt.NDArray[Any]]:
        """Read one token that was chosen elsewhere with every session.

        Args:
            tokens: A token for each session of the batch.

        Returns:
            Log-probabilities of the next token, ``[V]`` for each session.

        Raises:
            UsageError: A session has no token, or a token does not exist.
        """
        if self._outbox is not None:
            raise UsageError(
                "an interrupted write() left tokens that nobody has taken; call write() first"
            )
        if not isinstance(tokens, Mapping):
            raise UsageError(f"tokens is {tokens!r}; it must map each session to a token")
        if set(tokens) != set(self):
            raise UsageError(
                f"tokens has {len(tokens)} sessions and the batch {len(self)}; give a "
                "token for each session that is in the batch"
            )
        if self._rows:
            in_order = [tokens[row.session] for row in self._rows]
            checked_tokens(in_order, self.model.vocab_size)
            undo = self._undo_point()
            try:
                self._advance(in_order)
                for row, token in zip(self._rows, in_order, strict=True):
                    row.stream.decode(token)
            except BaseException:
                undo()
                raise
        return {row.session: _logits(row).copy() for row in self._rows}

    def write(self) -> dict[Session, GeneratedToken]:
        """Let every session write one token. Sessions that have finished leave the batch.

        Returns:
            The token of each session that was in the batch, with the text that it completed.

        Raises:
            EngineError: The step failed; every session is where it was.
            UsageError: The constraints of a session leave no token; every session is where it was,
                and :attr:`failed` is that session.
        """
        if self._outbox is None:
            self._write()
        written = {session: delivered(token) for session, token in (self._outbox or {}).items()}
        # Nothing is called from here on, so no interrupt loses what was written.
        self._outbox = None
        return written

    @exclusive
    def _write(self) -> None:
        self._release_finished()  # those that had nothing to write
        if not self._rows:
            return
        began = time.perf_counter()
        undo = self._undo_point()
        try:
            self._outbox = self._write_rows()
        except RowError as error:
            undo()
            self.failed = self._rows[error.row].session
            raise UsageError(
                f"session {error.row} of the batch cannot write: {error}; take it out with "
                "batch.leave(batch.failed)"
            ) from error
        except BaseException:
            undo()
            raise
        seconds = time.perf_counter() - began
        for row in self._rows:
            row.tokens += 1
            row.seconds += seconds
            if row.first_token_seconds is None:
                row.first_token_seconds = row.seconds
        self._release_finished()

    def _write_rows(self) -> dict[Session, GeneratedToken]:
        logits = np.stack([_logits(row) for row in self._rows])
        draws = draw_rows([row.generation for row in self._rows], logits)
        self._advance([draw.token for draw in draws])
        written = {}
        for place, (row, draw) in enumerate(zip(self._rows, draws, strict=True)):
            try:
                token = row.generation.accept(draw, row.stream.decode(draw.token))
            except UsageError as error:
                raise RowError(str(error), place) from error
            written[row.session] = token
        return written

    def _release_finished(self) -> None:
        for row in [row for row in self._rows if row.generation.finish_reason is not None]:
            self._leave(row.session)
            self.model.report(row.stats)

    def _undo_point(self) -> Callable[[], None]:
        """Return what takes back the next step of all rows."""
        undos = [self._state.undo_point()]
        for row in self._rows:
            undos += [row.stream.undo_point(), row.generation.undo_point()]

        def undo() -> None:
            for one in undos:
                one()

        return undo

    def _advance(self, tokens: list[int]) -> None:
        learn = np.asarray([row.stream.learn_written for row in self._rows], np.float32)
        logits = self.model.engine.step(np.asarray(tokens, np.int64), self._state, learn).copy()
        for row, token, prediction in zip(self._rows, tokens, logits, strict=True):
            row.stream.advance(token, prediction)

    # The whole of it.

    @exclusive
    def generate(
        self,
        prompts: Iterable[str],
        params: SamplingParams | None = None,
        *,
        taught: bool = True,
        **sampling: Any,
    ) -> list[str]:
        """Continue several prompts at once, each in a stream of its own.

        The streams step together in a batch of their own: sessions of this one are left alone.

        Args:
            prompts: The prompts.
            params: How to sample; the bundle's defaults when absent. Stream i has the seed
                ``seed + i``.
            taught: Whether the streams begin with what the bundle taught; see :class:`Session`.
            **sampling: Fields of :class:`SamplingParams` to change.

        Returns:
            A text for each prompt.

        Raises:
            UsageError: The prompts are one text; a prompt or an option can never work.
        """
        if isinstance(prompts, str) or not isinstance(prompts, Iterable):
            what = "one text, " if isinstance(prompts, str) else ""
            raise UsageError(f"prompts is {what}{str(prompts)[:40]!r}; give a list of texts")
        base = self.model.sampling(params, **sampling)
        texts: dict[Session, list[str]] = {}
        with Batch(self.model) as batch:
            for index, prompt in enumerate(prompts):
                session = Session(self.model, taught=taught)
                session.feed(prompt)
                seed = None if base.seed is None else base.seed + index
                batch.join(session, base, seed=seed)
                texts[session] = []
            while len(batch):
                for session, token in batch.write().items():
                    texts[session].append(token.text)
        return ["".join(pieces) for pieces in texts.values()]

    @exclusive
    def close(self) -> None:
        """Let all sessions leave."""
        for session in self:
            self.leave(session)

    def __enter__(self) -> Batch:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _logits(row: _Row) -> npt.NDArray[Any]:
    assert row.stream.logits is not None
    return row.stream.logits

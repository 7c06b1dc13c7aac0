"""Many streams, stepped together in one call of the engine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import UsageError
from ..sampling.params import SamplingParams
from ..sampling.sampler import draw_rows
from .encoding import checked_tokens
from .generation import GeneratedToken, Generation
from .session import Session
from .thread_guard import OneThread, alone

if TYPE_CHECKING:
    from ..model import Model

__all__ = ["Batch"]


class Batch:
    """Sessions that take their steps together; they may join and leave between any two.

    While a session is in a batch, its state is a row of the batch's: what the session itself
    offers works again when it has left. Predictions are those of a session alone to within 1e-5:
    engines multiply one row otherwise than several, so that the last bits differ, and the same
    seed gives the same text unless two tokens are that close.

    Args:
        model: The model that the sessions are of.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self._state: Any = model.engine.zero_state(0)
        self._sessions: list[Session] = []
        self._generations: dict[Session, Generation] = {}
        self._to_leave: list[Session] = []
        self._alone = OneThread("batch")

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._sessions))

    def __contains__(self, session: Session) -> bool:
        return session in self._sessions

    # Coming and going.

    @alone
    def join(self, session: Session, params: SamplingParams | None = None, **sampling: Any) -> None:
        """Take a session in, to write from where it stands.

        Args:
            session: A session of the batch's model.
            params: How it samples; the bundle's defaults when absent.
            **sampling: Fields of :class:`SamplingParams` to change.

        Raises:
            UsageError: The session is of another model, closed, or in a batch.
        """
        if session.model is not self.model:
            raise UsageError("the session is of another model than the batch; make it with its own")
        generation = session._begin(self.model.sampling(params, **sampling))
        session._start()
        row = len(self._sessions)
        self._state.resize(row + 1)
        self._state.copy_row(row, session._state, 0)
        session._logits = session.logits  # a copy: its buffer goes with the state
        session._move_out("is in a batch; take it out with batch.leave(session)")
        self._sessions.append(session)
        self._generations[session] = generation
        if generation.finish_reason is not None:
            self._to_leave.append(session)

    @alone
    def leave(self, session: Session) -> None:
        """Give a session its state back; it goes on alone from where it stands."""
        row = self._row(session)
        last = len(self._sessions) - 1
        session._move_in(self._state, row)
        if row != last:
            self._state.copy_row(row, self._state, last)
            self._sessions[row] = self._sessions[last]
        self._sessions.pop()
        self._state.resize(last)
        del self._generations[session]
        if session in self._to_leave:
            self._to_leave.remove(session)

    def _row(self, session: Session) -> int:
        for row, other in enumerate(self._sessions):
            if other is session:
                return row
        raise UsageError("the session is not in this batch; let it in with batch.join(session)")

    # Steps.

    @alone
    def step(self, tokens: Mapping[Session, int]) -> dict[Session, npt.NDArray[Any]]:
        """Read one token that was chosen elsewhere with every session.

        Args:
            tokens: A token for each session of the batch.

        Returns:
            Log-probabilities of the next token, ``[V]`` for each session.

        Raises:
            UsageError: A session has no token, or a token does not exist.
        """
        if set(tokens) != set(self._sessions):
            raise UsageError(
                f"tokens has {len(tokens)} sessions and the batch {len(self._sessions)}; give a "
                "token for each session that is in the batch"
            )
        row_tokens = [tokens[session] for session in self._sessions]
        if row_tokens:
            checked_tokens(row_tokens, self.model.vocab_size)
            self._advance(row_tokens)
            for session, token in zip(self._sessions, row_tokens, strict=True):
                session._decoder.push(token)
        return {session: self._logits_of(session) for session in self._sessions}

    @alone
    def write(self) -> dict[Session, GeneratedToken]:
        """Let every session write one token. Those that have come to their end leave.

        Returns:
            The token of each session that was in the batch, with the text that it completed.
        """
        for session in list(self._to_leave):
            self.leave(session)  # it was to write nothing
        sessions = list(self._sessions)
        if not sessions:
            return {}
        generations = [self._generations[session] for session in sessions]
        logits = np.stack([self._logits_of(session) for session in sessions])
        rows = [row for row, generation in enumerate(generations) if generation.drawn is None]
        if rows:
            # Should the step fail, tokens are not drawn again, and the texts are the same.
            drawn = draw_rows([generations[row].sampler for row in rows], logits[rows])
            for row, token, logprob in zip(rows, drawn, logits[rows, drawn].tolist(), strict=True):
                generations[row].drawn = (token, logprob, generations[row].likeliest(logits[row]))
        self._advance([generation.drawn[0] for generation in generations if generation.drawn])
        written = {}
        for session, generation in zip(sessions, generations, strict=True):
            token, logprob, top = generation.take()
            text = session._decoder.push(token)
            written[session] = generation.push(token, text, logprob, top)
            if generation.finish_reason is not None:
                self.leave(session)
        return written

    def _logits_of(self, session: Session) -> npt.NDArray[Any]:
        assert session._logits is not None
        return session._logits

    def _advance(self, tokens: list[int]) -> None:
        learn = np.asarray([session._learn_written for session in self._sessions], np.float32)
        logits = self.model.engine.step(np.asarray(tokens, np.int64), self._state, learn).copy()
        for session, token, row in zip(self._sessions, tokens, logits, strict=True):
            session._logits = row
            session._note(token)

    # The whole of it.

    @alone
    def generate(
        self, prompts: Iterable[str], params: SamplingParams | None = None, **sampling: Any
    ) -> list[str]:
        """Continue several prompts at once, each in a stream of its own.

        Args:
            prompts: The prompts.
            params: How to sample; the bundle's defaults when absent. Stream i has the seed
                ``seed + i``.
            **sampling: Fields of :class:`SamplingParams` to change.

        Returns:
            A text for each prompt.
        """
        base = self.model.sampling(params, **sampling)
        texts: dict[Session, list[str]] = {}
        for index, prompt in enumerate(prompts):
            session = self.model.session()
            session.feed(prompt)
            seed = None if base.seed is None else base.seed + index
            self.join(session, base, seed=seed)
            texts[session] = []
        while any(session in texts for session in self._sessions):
            for session, made in self.write().items():
                if session in texts:
                    texts[session].append(made.text)
        return ["".join(pieces) for pieces in texts.values()]

    @alone
    def close(self) -> None:
        """Let all sessions leave."""
        for session in self:
            self.leave(session)

    def __enter__(self) -> Batch:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

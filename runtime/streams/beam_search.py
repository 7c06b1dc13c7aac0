"""Search for the likeliest text of several tokens, which greedy choice may miss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..engines.base import EngineState
from ..errors import UsageError
from ..scalars import plain
from .stream import Stream

__all__ = ["BeamText", "beam_search"]

_MOST = 1_000
"""Beams: each holds a state of its own, and without a limit their number grows to what is asked."""


@dataclass(frozen=True)
class BeamText:
    """A text that a beam search found.

    Attributes:
        text: The text, without the stop string.
        tokens: Its tokens, including those of the stop string.
        logprob: Sum of their log-probabilities.
        score: ``logprob / len(tokens) ** length_penalty``, which the search ranks by.
    """

    text: str
    tokens: tuple[int, ...]
    logprob: float
    score: float


def beam_search(
    stream: Stream,
    beams: int,
    max_new_tokens: int,
    stop: tuple[str, ...] = (),
    length_penalty: float = 1.0,
) -> list[BeamText]:
    """Search for the likeliest continuations; each beam has a state of its own.

    All beams step in one call of the engine. A step copies the state of each surviving beam, so
    its cost does not depend on the length of the text.

    Args:
        stream: Where to start; it stays where it is.
        beams: Candidates kept after each step.
        max_new_tokens: Tokens of the longest text.
        stop: Texts that end a candidate.
        length_penalty: Above 0 favours longer texts, below 0 shorter ones, as in Hugging Face's
            transformers.

    Returns:
        At most ``beams`` texts, best first.

    Raises:
        UsageError: A number has a value that can never work.
    """
    beams, max_new_tokens = plain(beams), plain(max_new_tokens)
    if type(beams) is not int or not 1 <= beams <= _MOST:
        raise UsageError(f"beams is {beams!r}; it must be a whole number from 1 to {_MOST}")
    if type(max_new_tokens) is not int or max_new_tokens < 1:
        raise UsageError(
            f"max_new_tokens is {max_new_tokens!r}; it must be a whole number, 1 or above"
        )
    length_penalty = plain(length_penalty)
    is_real = isinstance(length_penalty, int | float) and not isinstance(length_penalty, bool)
    if not is_real or not -10 <= length_penalty <= 10:
        raise UsageError(f"length_penalty is {length_penalty!r}; it must lie between -10 and 10")
    start = stream.fork()
    start.start()
    return _Search(start, beams, max_new_tokens, stop, length_penalty).run()


class _Search:
    def __init__(
        self, start: Stream, beams: int, limit: int, stop: tuple[str, ...], penalty: float
    ) -> None:
        self._model, self._tokenizer = start.model, start.model.tokenizer
        self._beams, self._limit, self._penalty = beams, limit, penalty
        self._stops = [text.encode() for text in stop]
        self._learn = start.learn_written
        self._states: list[EngineState] = [self._model.engine.zero_state(1) for _ in range(2)]
        self._states[0].copy_row(0, start.state, 0)
        assert start.logits is not None
        self._logits: npt.NDArray[Any] = start.logits[None].copy()
        self._written: list[tuple[int, ...]] = [()]
        self._logprobs = np.zeros(1)
        self._finished: list[BeamText] = []

    def run(self) -> list[BeamText]:
        for step in range(1, self._limit + 1):
            rows, tokens = self._extend()
            if step == self._limit or not rows or self._cannot_improve():
                break
            self._advance(rows, tokens)
        for written, logprob in zip(self._written, self._logprobs.tolist(), strict=True):
            self._finish(written, logprob)
        self._finished.sort(key=lambda text: -text.score)
        return self._finished[: self._beams]

    def _extend(self) -> tuple[list[int], list[int]]:
        """Extend the beams by the tokens that give the best candidates overall."""
        vocab = self._logits.shape[1]
        totals = (self._logprobs[:, None] + self._logits).ravel()
        # Twice as many, because up to half of them may end here.
        order = np.argsort(-totals, kind="stable")[: 2 * self._beams].tolist()
        rows: list[int] = []
        tokens: list[int] = []
        written: list[tuple[int, ...]] = []
        logprobs: list[float] = []
        for rank, place in enumerate(order):
            row, token = divmod(place, vocab)
            path = (*self._written[row], token)
            if self._stop_of(path) is not None:
                if rank < self._beams:
                    self._finish(path, float(totals[place]))
            elif len(rows) < self._beams:
                rows.append(row)
                tokens.append(token)
                written.append(path)
                logprobs.append(float(totals[place]))
        self._written, self._logprobs = written, np.asarray(logprobs)
        return rows, tokens

    def _advance(self, rows: list[int], tokens: list[int]) -> None:
        past, present = self._states
        present.resize(len(rows))
        for row, source in enumerate(rows):
            present.copy_row(row, past, source)
        self._states = [present, past]
        ids = np.asarray(tokens, np.int64)
        self._logits = self._model.engine.step(ids, present, self._learn).copy()

    def _cannot_improve(self) -> bool:
        """Whether enough texts have ended, and no beam can overtake them.

        A beam's log-probability only falls: its score is at most what it would be at the full
        length with no further loss.
        """
        if len(self._finished) < self._beams:
            return False
        best, length = float(self._logprobs.max()), len(self._written[0])
        bound = max(best / float(n) ** self._penalty for n in (length, self._limit))
        worst = sorted(text.score for text in self._finished)[-self._beams]
        return bool(bound <= worst)

    def _stop_of(self, tokens: tuple[int, ...]) -> bytes | None:
        if not self._stops:
            return None
        longest = max(map(len, self._stops))
        new = self._tokenizer.token_bytes[tokens[-1]]
        tail = b""
        for token in reversed(tokens):
            tail = self._tokenizer.token_bytes[token] + tail
            if len(tail) >= longest + len(new):
                break
        found = [stop for stop in self._stops if stop in tail]
        return max(found, key=len) if found else None

    def _finish(self, tokens: tuple[int, ...], logprob: float) -> None:
        text = self._tokenizer.decode(list(tokens))
        if self._stop_of(tokens) is not None:
            text = text[: min(text.find(s.decode()) for s in self._stops if s.decode() in text)]
        score = logprob / float(len(tokens)) ** self._penalty
        self._finished.append(BeamText(text, tokens, logprob, score))

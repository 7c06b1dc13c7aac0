"""The thread that writes: all texts of a model, round after round.

A text joins and leaves between any two rounds. A round writes a few tokens of each, as many as take
about :data:`_ROUND`, and goes to the event loop as one message.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable

from ..errors import EngineError, RilletError
from .ensemble import Ensemble, Written
from .job import Job, Piece

__all__ = ["Lane"]

log = logging.getLogger("rillet.serve")

_ROUND = 0.0025
"""Seconds that a round should take: a reader waits for as long between two pieces."""

_LEAST, _MOST = 4, 16
"""Tokens of a text in one round, if the engine draws them: to hand out a piece costs several."""

_AHEAD = 4
"""Rounds that the event loop may be behind."""

CANCELLED = "cancelled"
"""Why a text ended that nobody wanted any more."""


class Lane:
    """Writes the texts of one ensemble in a thread of its own.

    Args:
        name: The thread's name.
        ensemble: What writes.
        loop: Where the texts are read.
        on_round: Called in the event loop with the seconds and the tokens of each round.
    """

    def __init__(
        self,
        name: str,
        ensemble: Ensemble,
        loop: asyncio.AbstractEventLoop,
        on_round: Callable[[float, int], object],
    ) -> None:
        self._ensemble, self._loop, self._on_round = ensemble, loop, on_round
        self._newcomers: list[Job] = []
        self._jobs: set[Job] = set()
        self._changed = threading.Condition()
        self._behind = threading.Semaphore(_AHEAD)
        self._is_closed = False
        self._least = _LEAST if ensemble.is_quick else 1
        self._count = self._least
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def add(self, job: Job) -> None:
        """Write a job's text; it has begun."""
        with self._changed:
            self._newcomers.append(job)
            self._changed.notify()

    def close(self) -> None:
        """End the thread; texts that are not finished end as cancelled."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._newcomers or self._jobs or self._is_closed):
                    self._changed.wait()
                newcomers, self._newcomers = self._newcomers, []
            ended = self._let_in(newcomers) + self._let_out()
            if ended:
                self._loop.call_soon_threadsafe(self._deliver, ended, None)
            if self._jobs:
                self._write()
            elif self._is_closed:
                return

    def _let_in(self, newcomers: list[Job]) -> list[Written]:
        refused = []
        for job in newcomers:
            try:
                self._ensemble.add(job)
                self._jobs.add(job)
            except RilletError as error:
                refused.append(Written(job, [], None, error))
        return refused

    def _let_out(self) -> list[Written]:
        unwanted = [job for job in self._jobs if job.is_cancelled or self._is_closed]
        for job in unwanted:
            self._ensemble.remove(job)
            self._jobs.remove(job)
        return [Written(job, [], CANCELLED) for job in unwanted]

    def _write(self) -> None:
        self._behind.acquire()
        began = time.perf_counter()
        try:
            rows = self._ensemble.write(self._count)
        except Exception as error:
            log.error("writing failed: %s", type(error).__name__)
            failure = EngineError(
                f"the model could not go on writing ({type(error).__name__}); try again"
            )
            rows = [Written(job, [], None, failure) for job in self._jobs]
            for job in self._jobs:
                self._ensemble.remove(job)
        seconds = time.perf_counter() - began
        self._jobs -= {row.job for row in rows if row.finish_reason or row.error}
        longer = int(self._count * _ROUND / seconds) if seconds else _MOST
        self._count = max(self._least, min(longer, 2 * self._count, _MOST))
        self._loop.call_soon_threadsafe(self._deliver, rows, seconds)

    def _deliver(self, rows: list[Written], seconds: float | None) -> None:
        """Put what was written where it is read; in the event loop."""
        for job, tokens, finish_reason, error in rows:
            piece = Piece(job.index, tokens, finish_reason, error)
            if tokens or piece.is_last:
                job.inbox.put(piece)
            if piece.is_last:
                job.ended.set()
        if seconds is not None:
            self._on_round(seconds, sum(len(row.tokens) for row in rows))
            # After those who were woken have had their turn.
            self._loop.call_soon(self._behind.release)

"""A model that is served: its threads, and the line in front of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from ..engines.base import RowWriter
from ..model import Model
from .ensemble import Batched, Ensemble, Together
from .job import Job
from .lane import Lane
from .limits import Limits
from .line import Line
from .metrics import Metrics
from .turns import Turns

__all__ = ["Host"]


class Host:
    """Runs one model for all who ask for it.

    Args:
        name: What clients call the model.
        model: The model.
        limits: What is taken on at most.
        metrics: Where figures go.
    """

    def __init__(self, name: str, model: Model, limits: Limits, metrics: Metrics) -> None:
        self.name, self.model, self.limits, self.metrics = name, model, limits, metrics
        self.created = int(time.time())
        self.line = Line(limits)
        self.turns = Turns(f"rillet read {name}")
        self._count = metrics.counters_of(name)
        self._lanes: tuple[Lane, Lane] | None = None

    def open(self) -> None:
        """Start to write, in the running event loop."""
        loop = asyncio.get_running_loop()
        self._lanes = (
            Lane(f"rillet write {self.name}", self._ensemble(), loop, self._count.on_round),
            # A grammar may search for long before it allows a token: who has one writes apart.
            Lane(f"rillet grammar {self.name}", Together(None), loop, self._count.on_round),
        )

    def _ensemble(self) -> Ensemble:
        writer = self.model.drafter
        if isinstance(writer, RowWriter):
            return Together(writer)
        return Batched(self.model) if self.model.engine.independent_rows else Together(None)

    @property
    def on_read(self) -> Callable[[int], object]:
        """To be called with the number of tokens that were read."""
        return self._count.on_read

    def write(self, job: Job) -> None:
        """Write a job's text; it has begun."""
        assert self._lanes is not None
        assert job.voice is not None
        self._lanes[job.voice.generation.sampler.constraint is not None].add(job)

    def close(self) -> None:
        """Stop; texts that are not finished end as cancelled."""
        for lane in self._lanes or ():
            lane.close()
        self.turns.close()
        self.model.close()

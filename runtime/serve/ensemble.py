"""The texts that a model writes at a time: in the engine's own call, or in a batch."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from ..engines.base import RowWriter
from ..errors import EngineError, RilletError, UsageError
from ..model import Model
from ..streams.batch import Batch
from ..streams.chorus import write_together
from ..streams.generation import GeneratedToken
from .job import Job

__all__ = ["Batched", "Ensemble", "Together", "Written"]


class Written(NamedTuple):
    """What a round gave a job."""

    job: Job
    tokens: list[GeneratedToken]
    finish_reason: str | None
    error: RilletError | None = None


class Ensemble(Protocol):
    """Jobs that write together. One thread uses it."""

    @property
    def is_quick(self) -> bool:
        """Whether several tokens of a text take little more time than one."""
        ...

    def add(self, job: Job) -> None:
        """Let a job that has begun write too."""
        ...

    def remove(self, job: Job) -> None:
        """Let a job go; its session is whole."""
        ...

    def write(self, count: int) -> list[Written]:
        """Let each write up to some tokens, and let those go that have ended."""
        ...


class Together:
    """Jobs whose streams keep their own states; see :func:`.write_together`."""

    def __init__(self, writer: RowWriter | None) -> None:
        self._writer = writer
        self._jobs: list[Job] = []

    @property
    def is_quick(self) -> bool:
        """Whether the engine draws tokens itself."""
        return self._writer is not None

    def add(self, job: Job) -> None:
        """Let a job write too."""
        self._jobs.append(job)

    def remove(self, job: Job) -> None:
        """Let a job go."""
        self._jobs.remove(job)

    def write(self, count: int) -> list[Written]:
        """Let each write up to some tokens."""
        jobs = self._jobs
        voices = [voice for job in jobs if (voice := job.voice) is not None]
        rows = write_together(self._writer, voices, count)
        self._jobs = [job for job, voice in zip(jobs, voices, strict=True) if not voice.is_done]
        return [
            Written(job, tokens, voice.generation.finish_reason, voice.error)
            for job, tokens, voice in zip(jobs, rows, voices, strict=True)
        ]


class Batched:
    """Jobs whose streams are rows of one batch: a token of each for a call of the engine."""

    def __init__(self, model: Model) -> None:
        self._batch = Batch(model)
        self._jobs: dict[int, Job] = {}

    @property
    def is_quick(self) -> bool:
        """Whether a round writes several tokens: never."""
        return False

    def add(self, job: Job) -> None:
        """Let a job write too."""
        self._batch.join(job.session, job.params)
        self._jobs[id(job.session)] = job

    def remove(self, job: Job) -> None:
        """Let a job go."""
        self._batch.leave(job.session)
        del self._jobs[id(job.session)]

    def write(self, count: int) -> list[Written]:
        """Let each write one token."""
        try:
            rows = self._batch.write()
        except UsageError as error:
            failed = self._jobs[id(self._batch.failed)]
            self.remove(failed)
            return [Written(failed, [], None, error)]
        except EngineError as error:
            jobs = list(self._jobs.values())
            for job in jobs:
                self.remove(job)
            return [Written(job, [], None, error) for job in jobs]
        written = []
        for session, token in rows.items():
            job, reason = self._jobs[id(session)], session.finish_reason
            written.append(Written(job, [token], reason))
            if reason is not None:
                del self._jobs[id(session)]
        return written

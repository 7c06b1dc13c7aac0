"""The texts of one request, from the prompt to the last token."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import secrets
import time
from collections.abc import AsyncIterator, Generator, Sequence
from types import TracebackType

from ..errors import EngineError, RilletError
from ..sampling.params import SamplingParams
from ..streams.generation import GeneratedToken
from ..streams.session import Session
from .host import Host
from .job import Inbox, Job, Piece
from .lane import CANCELLED
from .reading import read, read_with_predictions

__all__ = ["Plan", "Texts"]

log = logging.getLogger("rillet.serve")


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a request wants written.

    Attributes:
        prompts: The tokens of each prompt.
        params: How to sample.
        n: Texts for each prompt; text i has the seed ``seed + i``.
        eager: Whether to hand out text as it comes.
        predictions: Whether to note how likely the tokens of the prompts were.
        session: The stream to write from, which goes on afterwards; a new one when absent.
    """

    prompts: Sequence[Sequence[int]]
    params: SamplingParams
    n: int = 1
    eager: bool = False
    predictions: bool = False
    session: Session | None = None

    @property
    def count(self) -> int:
        """Number of texts."""
        return len(self.prompts) * self.n


class Texts:
    """Reads the prompts and writes the texts of a request; leaving it ends whatever goes on.

    Args:
        host: The model.
        client: Who asks.
        plan: What for.
    """

    def __init__(self, host: Host, client: str, plan: Plan) -> None:
        seed = plan.params.seed
        self.seed = secrets.randbits(32) if seed is None else seed
        self.noted: list[list[GeneratedToken]] = []
        """The tokens of each prompt with their predictions, if they were asked for."""
        self._host, self._client, self._plan = host, client, plan
        self._inbox = Inbox(plan.eager)
        self._jobs: list[Job] = []
        self._held = 0
        self._feeder: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Texts:
        await self._host.line.enter(self._client, self._plan.count)
        self._held = self._plan.count
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._host.limits.seconds, self._end)
        self._feeder = loop.create_task(self._feed())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._feeder is not None
        assert self._timer is not None
        self._timer.cancel()
        self._end()
        await asyncio.shield(asyncio.ensure_future(self._leave(self._feeder)))

    async def _leave(self, feeder: asyncio.Task[None]) -> None:
        """Wait until no thread uses a session any more: it may be somebody else's then."""
        await asyncio.wait([feeder])
        for job in self._jobs:
            await job.ended.wait()
        self._host.line.leave(self._client, self._held)

    async def pieces(self) -> AsyncIterator[list[Piece]]:
        """What the texts gain, as it comes, until all have ended.

        Raises:
            RilletError: A prompt cannot be read, or a text cannot be written.
        """
        left, began, is_first = set(range(self._plan.count)), time.perf_counter(), True
        while left:
            pieces = await self._inbox.take()
            if is_first:
                is_first = False
                self._host.metrics.observe_first(self._host.name, time.perf_counter() - began)
            for piece in pieces:
                if piece.error is not None:
                    raise piece.error
                if piece.is_last and piece.choice in left:
                    left.remove(piece.choice)
                    if left:  # the last row is given back once the session is free
                        self._held -= 1
                        self._host.line.leave(self._client)
            yield pieces

    def _end(self) -> None:
        assert self._feeder is not None
        self._feeder.cancel()
        for job in self._jobs:
            job.is_cancelled = True

    async def _feed(self) -> None:
        """Read the prompts, one after the other, and have the texts of each written."""
        begun = 0
        try:
            for number, prompt in enumerate(self._plan.prompts):
                jobs = await self._host.turns.run(self._prepare(number, prompt))
                for job in jobs:
                    begun += 1
                    self._jobs.append(job)
                    self._host.write(job)
        except asyncio.CancelledError:
            for index in range(begun, self._plan.count):
                self._inbox.put(Piece(index, [], CANCELLED))
        except RilletError as error:
            self._inbox.put(Piece(begun, [], None, error))
        except Exception as error:
            log.error("reading failed: %s", type(error).__name__)
            failure = EngineError(
                f"the model could not read the prompt ({type(error).__name__}); try again"
            )
            self._inbox.put(Piece(begun, [], None, failure))

    def _prepare(self, number: int, prompt: Sequence[int]) -> Generator[None, None, list[Job]]:
        """Read one prompt, and begin its texts."""
        plan, host = self._plan, self._host
        session = plan.session or host.model.session()
        if plan.predictions:
            top = plan.params.top_logprobs
            self.noted.append(
                (yield from read_with_predictions(session, prompt, top, host.on_read))
            )
        else:
            yield from read(session, prompt, host.on_read)
        jobs = []
        for choice in range(plan.n):
            params = plan.params.with_seed(self.seed + choice)
            writer = session if choice == plan.n - 1 else session.fork()
            index = number * plan.n + choice
            exact = plan.session is not None
            job = Job(writer, params, self._inbox, index, self._client, exact)
            job.begin()
            if job.voice is not None and job.voice.is_done:
                reason = job.voice.generation.finish_reason
                self._inbox_soon(Piece(index, [], reason))
                continue
            jobs.append(job)
            yield
        return jobs

    def _inbox_soon(self, piece: Piece) -> None:
        """A text of no tokens ends before it is written."""
        assert self._feeder is not None
        self._feeder.get_loop().call_soon_threadsafe(self._inbox.put, piece)

"""The engine on TensorRT itself: no ONNX Runtime, state on the GPU, each step one CUDA graph."""

from __future__ import annotations

import logging
import shlex
import threading
import warnings
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from ...bundle import Bundle
from ...errors import EngineError
from ..base import EngineState, Learn, TokenGenerator
from ..checks import check_finite, check_tokens
from ..cuda.memory import Cuda, CudaBuffer, CudaStream, ExchangeBuffer
from ..device_state import DeviceState, Lane, LanePool
from ..sides import following
from .api import find_tensorrt
from .plan import Plan, StepCalls, enqueue, place
from .records import EngineRecord, chosen_record, find_records

__all__ = ["TensorrtEngine"]

log = logging.getLogger("rillet")

_PREFILL_BYTES = 64 << 20
"""Most bytes of the logits of one call of the prefill graph."""


class TensorrtEngine:
    """Runs the engines that ``rillet engine build`` built from a bundle's graphs.

    Prompts are read with the prefill engine if one was built and agreed with PyTorch's record on
    its GPU; otherwise token by token.

    Args:
        bundle: The bundle.
        library: ``tensorrt`` or ``tensorrt_rtx``; by default the one that built the newest
            engine.
        graphs: Whether to capture each step as a CUDA graph.
        unverified: Whether to read prompts even with a prefill engine that was not compared.

    Raises:
        EngineError: TensorRT or a GPU is missing, or no engine was built for this machine.
    """

    threads = 1

    def __init__(
        self,
        bundle: Bundle,
        library: str | None = None,
        graphs: bool = True,
        unverified: bool = False,
    ) -> None:
        self.bundle = bundle
        self.state_table = bundle.state
        self.vocab_size = bundle.vocab_size
        self.last_logits = bundle.last_logits
        self.independent_rows = bundle.independent_rows
        self.api = find_tensorrt(library or _builder(bundle))
        self.cuda = Cuda()
        self._graphs, self._unverified = graphs, unverified
        self._lock = threading.Lock()
        self._plans: dict[str, Plan | None] = {}
        # Not a method: the engine would hold itself, and so the memory that it leaves behind.
        self._pool = LanePool(partial(_make_lane, self.cuda, bundle))
        self._plan("decode")

    @property
    def provider(self) -> str:
        """What owns the graphs' nodes: TensorRT owns all of them."""
        return "TensorRT"

    @property
    def version(self) -> str:
        """Name and version of the library that computes, and whether it replays CUDA graphs."""
        return self.api.library + (", CUDA graphs" if self._graphs else "")

    def zero_state(self, batch: int = 1) -> DeviceState:
        """Return the state at the start of a stream: zeros."""
        return DeviceState(self.state_table, batch, self._pool, self._capacity_for)

    def step(
        self, tokens: npt.NDArray[Any], state: EngineState, learn: Learn = 1.0
    ) -> npt.NDArray[Any]:
        """Read one token per row; see :meth:`.Engine.step`."""
        state = self._pool.own_state(state)
        check_tokens(tokens, self.vocab_size)
        plan, lane = self._decode(), state.lane
        calls = lane.calls  # another thread may close the engine
        if calls is None or calls.plan is not plan:
            calls = lane.calls = StepCalls(plan, self.state_table, lane, self._graphs)
            self._graphs = calls.are_captured
        lane.send(tokens, learn, state.batch)
        calls.run(lane, state.side)
        logits: npt.NDArray[Any] = lane.logits.read()[: state.batch, 0]
        check_finite(logits)
        state.side = following(state.side)
        return logits

    def prefill(
        self, tokens: npt.NDArray[Any], state: EngineState, learn: Learn = 1.0, last: bool = False
    ) -> npt.NDArray[Any]:
        """Read tokens ``[B, T]``; see :meth:`.Engine.prefill`."""
        state = self._pool.own_state(state)
        tokens = np.ascontiguousarray(tokens, np.int64)
        check_tokens(tokens, self.vocab_size)
        before = state.copy()
        try:
            plan = self._plan("prefill")
            usable = plan is not None and state.lane.capacity in plan.batches
            if plan is None or not usable or (self.last_logits and not last):
                parts = [self.step(column, state, learn)[:, None] for column in tokens.T]
            else:
                parts = self._chunks(plan, tokens, state, learn)
        except BaseException:
            state.copy_from(before)
            raise
        return parts[-1][:, -1:] if last else np.concatenate(parts, axis=1)

    def describe(self, graph: str) -> tuple[list[dict[str, str]], int]:
        """Return the layers of a graph's engine, and the GPU memory of a context in bytes.

        Args:
            graph: ``decode``; or ``prefill``, if this engine reads prompts with it.
        """
        plan = self._plan(graph)
        assert plan is not None
        return self.api.layers(plan.engine), self.api.device_memory(plan.engine)

    def generator(self) -> TokenGenerator | None:
        """Return ``None``: TensorRT runs no generating graph."""
        return None

    def close(self) -> None:
        """Release the engines and free buffers; the next call reloads them."""
        with self._lock:
            self._plans.clear()
        self._pool.clear()

    def _decode(self) -> Plan:
        plan = self._plans.get("decode") or self._plan("decode")
        assert plan is not None
        return plan

    def _plan(self, graph: str) -> Plan | None:
        """Load a graph's engine on first use; ``None`` for a prefill engine that cannot be used."""
        with self._lock:
            if graph not in self._plans:
                self._plans[graph] = self._open(graph)
            return self._plans[graph]

    def _open(self, graph: str) -> Plan | None:
        try:
            record = chosen_record(self.bundle, graph, self.api)
        except EngineError as error:
            if graph == "decode":
                raise
            warnings.warn(f"{error}; prompts are read token by token", stacklevel=4)
            return None
        if record is None and graph == "decode":
            raise EngineError(
                f"no TensorRT engine was built from {self.bundle.path}; build one: rillet "
                f"engine build {shlex.quote(str(self.bundle.path))}"
            )
        if record is None:
            return None
        if graph == "prefill" and record.verified is None and not self._unverified:
            log.info("%s was never compared: prompts are read token by token", record.path)
            return None
        return self._load(record)

    def _load(self, record: EngineRecord) -> Plan:
        plan = Plan(self.api, record)
        expected = {"input_ids", "learn", "logits"}
        expected |= {name for row in self.state_table for name in (row.past, row.present)}
        if differing := sorted(expected ^ set(plan.names)):
            raise EngineError(
                f"{record.path} does not fit the state table of its bundle: "
                f"{', '.join(differing)} appear in only one of them; build it again: rillet engine "
                f"build {self.bundle.path} --rebuild"
            )
        return plan

    def _capacity_for(self, batch: int) -> int:
        batches = self._decode().batches
        for capacity in batches:
            if capacity >= batch:
                return capacity
        raise EngineError(
            f"the engine steps at most {batches[-1]} streams, and this batch has {batch}; build "
            f"a larger one: rillet engine build {shlex.quote(str(self.bundle.path))} --batch "
            f"{','.join(map(str, (*batches, batch)))}"
        )

    def _chunks(
        self, plan: Plan, tokens: npt.NDArray[Any], state: DeviceState, learn: Learn
    ) -> list[npt.NDArray[Any]]:
        """Read tokens with the prefill engine; return the logits of each chunk."""
        lane = state.lane
        row = lane.capacity * self.vocab_size * 4
        longest = max(1, min(plan.record.key.lengths[-1], _PREFILL_BYTES // row))
        lane.send(None, learn, state.batch)
        reading = lane.reading
        if reading is None or reading[0] is not plan:
            reading = lane.reading = plan, plan.context(lane.capacity, lane.stream)
        context = reading[1]
        parts = []
        for start in range(0, tokens.shape[1], longest):
            chunk = tokens[:, start : start + longest]
            length = chunk.shape[1]
            ids = ExchangeBuffer(lane.stream, (lane.capacity, length), "int64")
            whole = np.zeros((lane.capacity, length), np.int64)
            whole[: state.batch] = chunk
            ids.write(whole)
            shape = (lane.capacity, 1 if self.last_logits else length, self.vocab_size)
            logits = ExchangeBuffer(lane.stream, shape, "float32")
            place(self.state_table, context, lane, state.side, ids, logits, length)
            for buffer in (ids, lane.learn):
                buffer.send()
            enqueue(context, lane.stream, "the prefill graph")
            logits.fetch()
            lane.stream.wait()
            parts.append(logits.read()[: state.batch])
            check_finite(parts[-1])
            state.side = following(state.side)
        return parts


def _make_lane(cuda: Cuda, bundle: Bundle, capacity: int) -> Lane:
    stream = CudaStream(cuda)
    allocate, exchange = partial(CudaBuffer, stream), partial(ExchangeBuffer, stream)
    lane = Lane(bundle.state, bundle.vocab_size, capacity, allocate, exchange=exchange)
    lane.stream = stream
    return lane


def _builder(bundle: Bundle) -> str | None:
    """The library that built the newest engine of a bundle, if it is installed."""
    names = [record.key.library.split(" ")[0] for record in find_records(bundle, "decode")]
    return names[0] if names and find_spec(names[0]) is not None else None

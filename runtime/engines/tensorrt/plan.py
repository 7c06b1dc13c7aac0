"""A loaded TensorRT engine, and the calls that a lane makes of it."""

from __future__ import annotations

import logging
from typing import Any

from ...errors import EngineError
from ...state_table import StateTensor
from ..cuda.memory import CudaGraph, CudaStream
from ..device_state import Lane
from ..sides import SIDES, following
from .api import TensorrtApi
from .records import EngineRecord

__all__ = ["Plan", "StepCalls", "enqueue", "place"]

log = logging.getLogger("rillet")


class Plan:
    """A loaded engine.

    Args:
        api: The TensorRT to load it with.
        record: The engine on disk.

    Raises:
        EngineError: The file is missing or damaged, or TensorRT cannot load it.
    """

    def __init__(self, api: TensorrtApi, record: EngineRecord) -> None:
        self.record = record
        self.batches = record.key.batches
        self._trt, self._logger = api.trt, api.logger()
        data = record.read()
        runtime = self._trt.Runtime(self._logger)
        if record.key.version_compatible:
            # Such an engine contains code. An engine is trusted like a program.
            runtime.engine_host_code_allowed = True
        obstacle = api.engine_obstacle(runtime, data)
        engine = None if obstacle else runtime.deserialize_cuda_engine(data)
        if engine is None:
            reason = obstacle or "; ".join(self._logger.errors) or "it gives no reason"
            raise EngineError(f"{api.library} cannot load {record.path}: {reason}")
        self._runtime, self.engine = runtime, engine
        self.names = [engine.get_tensor_name(at) for at in range(engine.num_io_tensors)]

    def context(self, capacity: int, stream: CudaStream) -> Any:
        """Create an execution context for a number of rows."""
        context = self.engine.create_execution_context()
        if context is None:
            reason = "; ".join(self._logger.errors) or "not enough memory?"
            raise EngineError(
                f"TensorRT cannot create an execution context for {self.record.path}: {reason}"
            )
        profile = self.batches.index(capacity)
        if not context.set_optimization_profile_async(profile, int(stream)):
            raise EngineError(f"TensorRT refuses profile {profile} of {self.record.path}")
        stream.wait()
        return context


class StepCalls:
    """The steps of a lane, one from each side, captured as CUDA graphs if possible.

    They do not hold the lane, which holds them: without a cycle, its memory is free at once.

    Args:
        plan: The engine.
        table: The state table.
        lane: The lane whose buffers they use.
        graphs: Whether to try to capture them.
    """

    def __init__(self, plan: Plan, table: list[StateTensor], lane: Lane, graphs: bool) -> None:
        self.plan = plan
        # One context per side: a context holds one set of addresses, and a graph keeps them.
        self._contexts = [plan.context(lane.capacity, lane.stream) for _ in range(SIDES)]
        for side, context in enumerate(self._contexts):
            place(table, context, lane, side, lane.ids, lane.logits, 1)
        self._captured: list[CudaGraph] = []
        # The first call of a context allocates, which cannot be captured. It changes only the
        # side that it writes, which is restored.
        saved = lane.save()
        try:
            for side in range(SIDES):
                self._queue(lane, side)
                lane.stream.wait()
            if graphs:
                self._captured = self._capture(lane)
        finally:
            lane.restore(saved)

    @property
    def are_captured(self) -> bool:
        """Whether they are replayed."""
        return bool(self._captured)

    def run(self, lane: Lane, side: int) -> None:
        """Take a step that reads one side, and wait for it."""
        if self._captured:
            self._captured[side].launch()
        else:
            self._queue(lane, side)
        lane.stream.wait()

    def _queue(self, lane: Lane, side: int) -> None:
        for buffer in (lane.ids, lane.learn):
            buffer.send()
        enqueue(self._contexts[side], lane.stream, "the decode graph")
        lane.logits.fetch()

    def _capture(self, lane: Lane) -> list[CudaGraph]:
        graphs = []
        for side in range(SIDES):
            try:
                with lane.stream.capture() as captured:
                    self._queue(lane, side)
            except EngineError as error:
                log.warning("steps are not captured as CUDA graphs: %s", error)
                return []
            graphs += captured
        return graphs


def place(
    table: list[StateTensor],
    context: Any,
    lane: Lane,
    side: int,
    ids: Any,
    logits: Any,
    length: int,
) -> None:
    """Set a context's shapes and addresses: it reads one side of a lane and writes the next.

    Args:
        table: The state table.
        context: The context.
        lane: The lane.
        side: The side that is read.
        ids: The buffer of the tokens.
        logits: The buffer of the logits.
        length: Tokens of a call.

    Raises:
        EngineError: TensorRT refuses a shape or an address.
    """
    capacity = lane.capacity
    shapes = {"input_ids": (capacity, length), "learn": (capacity,)}
    addresses: dict[str, int] = {
        "input_ids": ids.address,
        "learn": lane.learn.address,
        "logits": logits.address,
    }
    for row in table:
        shapes[row.past] = (capacity, *row.shape)
        addresses[row.past] = lane.sides[side][row.name].address
        addresses[row.present] = lane.sides[following(side)][row.name].address
    for name, shape in shapes.items():
        if not context.set_input_shape(name, shape):
            raise EngineError(f"TensorRT refuses the shape {shape} of {name}")
    for name, address in addresses.items():
        if not context.set_tensor_address(name, address):
            raise EngineError(f"TensorRT refuses the address of {name}")


def enqueue(context: Any, stream: CudaStream, what: str) -> None:
    """Queue a run of a context.

    Args:
        context: The context.
        stream: The stream to run it on.
        what: What to call the graph in messages.

    Raises:
        EngineError: TensorRT cannot run it.
    """
    if not context.execute_async_v3(int(stream)):
        raise EngineError(
            f"TensorRT failed to run {what}; the stream is where it was before it. TensorRT's "
            "messages are in the log `rillet`, at level INFO"
        )

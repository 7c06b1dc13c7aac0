"""The engine on ONNX Runtime with the streams' state in the GPU's memory."""

from __future__ import annotations

import ctypes
import itertools
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...bundle import Bundle
from ...errors import EngineError
from ...state_table import is_shared
from ..base import EngineState, Learn, Provider, TokenGenerator
from ..checks import check_finite, check_tokens
from ..cuda.driver import copy_on_device, zero_on_device
from ..device_state import DeviceState, Lane, LanePool, power_of_two
from ..sides import SIDES, following
from .options import cuda_options
from .providers import import_onnxruntime, obstacle
from .sessions import OnnxGraphs, run_bound

__all__ = ["OnnxDeviceEngine"]

log = logging.getLogger("rillet")
ort = import_onnxruntime()

_CHUNK = 256
"""Tokens per call of the prefill graph: its attention grows with their square."""


class OnnxDeviceEngine(OnnxGraphs):
    """Runs a bundle's graphs on the CUDA provider; the state never leaves the GPU.

    A step sends the tokens and fetches the logits. It is captured as a CUDA graph if ONNX Runtime
    allows it.

    Args:
        bundle: The bundle.
        provider: ``cuda``; ``cpu`` runs the same calls with the processor's memory as the device.
        graphs: Whether to capture steps as CUDA graphs; ``None`` to do so if it works.
        threads: Threads that one call may use.
    """

    def __init__(
        self,
        bundle: Bundle,
        provider: Provider = "cuda",
        threads: int = 1,
        graphs: bool | None = None,
    ) -> None:
        super().__init__(bundle, provider, threads)
        self._graphs = graphs
        self._device = "cpu" if provider == "cpu" else "cuda"
        self._captures = False
        self._numbers = itertools.count(1)
        self._running = threading.Lock()
        # ONNX Runtime runs nodes in order, so the past and present of a memory may be one buffer.
        self._shared = frozenset(row.name for row in self.state_table if is_shared(row))
        # Not a method: the engine would hold itself, and so the memory that it leaves behind.
        self._pool = LanePool(partial(_make_lane, bundle, self._device, self._shared))

    @property
    def version(self) -> str:
        """Name and version of the library that computes, and whether it replays CUDA graphs."""
        return super().version + (", CUDA graphs" if self._captures else "")

    def zero_state(self, batch: int = 1) -> DeviceState:
        """Return the state at the start of a stream: zeros."""
        self._session("decode")  # fails before a device without a working provider is touched
        return DeviceState(self.state_table, batch, self._pool, power_of_two)

    def step(
        self, tokens: npt.NDArray[Any], state: EngineState, learn: Learn = 1.0
    ) -> npt.NDArray[Any]:
        """Read one token per row; see :meth:`.Engine.step`."""
        session = self._session("decode")
        state = self._pool.own_state(state)
        check_tokens(tokens, self.vocab_size)
        lane = state.lane
        calls = lane.calls  # another thread may close the engine
        if calls is None or calls[0] is not session:
            calls = self._prepare(session, lane)
        lane.send(tokens, learn, state.batch)
        self._run(session, calls[1][state.side])
        logits: npt.NDArray[Any] = lane.logits.read()[: state.batch, 0]
        try:
            check_finite(logits)
        except EngineError:
            state.repair(self._shared)
            raise
        state.side = following(state.side)
        return logits

    def prefill(
        self, tokens: npt.NDArray[Any], state: EngineState, learn: Learn = 1.0, last: bool = False
    ) -> npt.NDArray[Any]:
        """Read tokens ``[B, T]`` in chunks; see :meth:`.Engine.prefill`."""
        session = self._session("prefill")
        state = self._pool.own_state(state)
        tokens = np.ascontiguousarray(tokens, np.int64)
        check_tokens(tokens, self.vocab_size)
        before = state.copy()
        try:
            if self.last_logits and not last:
                steps = [self.step(column, state, learn) for column in tokens.T]
                return np.stack(steps, axis=1)
            state.lane.send(None, learn, state.batch)
            starts = range(0, tokens.shape[1], _CHUNK)
            parts = [self._chunk(session, tokens[:, at : at + _CHUNK], state) for at in starts]
        except BaseException:
            state.copy_from(before)
            raise
        return parts[-1][:, -1:] if last else np.concatenate(parts, axis=1)

    def generator(self) -> TokenGenerator | None:
        """Return ``None``: the generating graph samples on the host."""
        return None

    def close(self) -> None:
        """Release the graphs and free buffers; the next call reloads them."""
        super().close()
        self._pool.clear()

    def _load(self, graph: str) -> Any:
        path = self.bundle.checked_graph(graph)
        if self._requested == "cpu":
            return self._create(path, "cpu")
        if graph == "decode" and self._graphs is not False:
            try:
                return self._captured(path)
            except EngineError as error:
                self._captures = False
                if self._graphs or obstacle("cuda") is not None:
                    raise
                log.info("steps are not captured as CUDA graphs: %s", error)
        return self._create(path, "cuda", cuda_options(False))

    def _captured(self, path: Path) -> Any:
        """Load the decoding graph to capture it, and try: some graphs fail only when they run."""
        session = self._create(path, "cuda", cuda_options(True))
        self._captures = True
        lane = self._pool.take(1)
        self._prepare(session, lane)
        self._pool.give_back(lane)
        return session

    def _prepare(self, session: Any, lane: Lane) -> tuple[Any, list[tuple[Any, Any]]]:
        """Bind every side and run each once, which allocates memory and captures the graphs.

        Capturing runs the graph more than once. A step does not change the side that it reads,
        so repeating it does no harm; the sides that it writes, and the slot in a tensor whose
        sides are one buffer, are restored.
        """
        lane.send(np.zeros(lane.capacity, np.int64), 0.0, lane.capacity)
        calls = [self._bind(session, lane, side) for side in range(SIDES)]
        saved = lane.save()
        try:
            for call in calls:
                self._run(session, call)
        finally:
            lane.restore(saved)
        lane.calls = (session, calls)
        return session, calls

    def _bind(self, session: Any, lane: Lane, side: int) -> tuple[Any, Any]:
        """Bind a call that reads one side of a lane and writes the next; with its run options."""
        binding = session.io_binding()
        inputs: dict[str, Any] = {"input_ids": lane.ids, "learn": lane.learn}
        inputs |= {row.past: lane.sides[side][row.name] for row in self.state_table}
        outputs: dict[str, Any] = {"logits": lane.logits}
        present = lane.sides[following(side)]
        outputs |= {row.present: present[row.name] for row in self.state_table}
        for name, buffer in inputs.items():
            binding.bind_ortvalue_input(name, buffer.value)
        for name, buffer in outputs.items():
            binding.bind_ortvalue_output(name, buffer.value)
        options = ort.RunOptions()
        if self._captures:
            # One number per pair of buffers: 1 to 3 for the first lane's sides.
            options.add_run_config_entry("gpu_graph_id", str(next(self._numbers)))
        return binding, options

    def _run(self, session: Any, call: tuple[Any, Any]) -> None:
        if not self._captures:
            run_bound(session, *call)
            return
        with self._running:  # a session that captures runs in one thread at a time
            run_bound(session, *call)

    def _chunk(
        self, session: Any, tokens: npt.NDArray[Any], state: DeviceState
    ) -> npt.NDArray[Any]:
        """Read a chunk with the prefill graph; return logits ``[B, T, V]`` or ``[B, 1, V]``."""
        lane = state.lane
        ids = np.zeros((lane.capacity, tokens.shape[1]), np.int64)
        ids[: state.batch] = tokens
        binding = session.io_binding()
        binding.bind_output("logits", self._device)  # outputs come in the order of binding
        with _device_errors():
            sent = ort.OrtValue.ortvalue_from_numpy(ids, self._device, 0)
        binding.bind_ortvalue_input("input_ids", sent)
        binding.bind_ortvalue_input("learn", lane.learn.value)
        for row in self.state_table:
            sides = state.side, following(state.side)
            past, present = (lane.sides[side][row.name] for side in sides)
            binding.bind_ortvalue_input(row.past, past.value)
            binding.bind_ortvalue_output(row.present, present.value)
        run_bound(session, binding)
        with _device_errors():
            logits: npt.NDArray[Any] = binding.get_outputs()[0].numpy()[: state.batch]
        check_finite(logits)
        state.side = following(state.side)
        return logits


def _make_lane(bundle: Bundle, device: str, shared: frozenset[str], capacity: int) -> Lane:
    allocate = partial(OrtBuffer, device=device)
    return Lane(bundle.state, bundle.vocab_size, capacity, allocate, shared)


@contextmanager
def _device_errors() -> Iterator[None]:
    """Report what ONNX Runtime raises when it copies or allocates, as on a device that is lost."""
    try:
        yield
    except Exception as error:  # onnxruntime's exceptions share no public base
        raise EngineError(
            f"onnxruntime cannot use the device's memory ({error}); the stream is where it was"
        ) from error


class OrtBuffer:
    """A tensor that ONNX Runtime allocates on a device.

    Args:
        shape: Rows first.
        dtype: numpy's name of the element type.
        device: ``cuda``, or ``cpu``.
    """

    def __init__(self, shape: tuple[int, ...], dtype: str, device: str) -> None:
        self._on_host = device == "cpu"
        self._row = int(np.prod(shape[1:], dtype=np.int64)) * np.dtype(dtype).itemsize
        with _device_errors():
            self.value = ort.OrtValue.ortvalue_from_numpy(np.zeros(shape, dtype), device, 0)

    def read(self) -> npt.NDArray[Any]:
        """Copy all rows to the host."""
        with _device_errors():
            return np.array(self.value.numpy())

    def write(self, values: npt.NDArray[Any]) -> None:
        """Replace all rows in place: a captured graph reads this address.

        ONNX Runtime waits for the copy, and for its own stream at the end of every run.
        """
        with _device_errors():
            self.value.update_inplace(np.ascontiguousarray(values))

    def copy_rows(self, row: int, source: OrtBuffer, source_row: int, rows: int) -> None:
        """Replace rows by rows of another buffer; nothing leaves the device."""
        target = self.value.data_ptr() + row * self._row
        origin = source.value.data_ptr() + source_row * self._row
        if not rows or target == origin:
            return
        if self._on_host:
            ctypes.memmove(target, origin, rows * self._row)
        else:
            copy_on_device(target, origin, rows * self._row)

    def zero_rows(self, row: int, rows: int) -> None:
        """Set rows to zero."""
        target = self.value.data_ptr() + row * self._row
        if self._on_host:
            ctypes.memset(target, 0, rows * self._row)
        else:
            zero_on_device(target, rows * self._row)

"""The engine on ONNX Runtime with the streams' state in the host's memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import EngineError
from ...state_table import check_state, is_shared
from ..base import Learn
from ..checks import check_finite
from .sessions import OnnxGraphs, run_bound

__all__ = ["OnnxEngine", "OnnxState"]

_CHUNK = 128
"""Tokens fed to the prefill graph at a time: more take more memory, and no less time."""

_ROWS = 16
"""Rows that one call steps: with more, what a node leaves for the next no longer fits the cache."""


class OnnxState:
    """State in two sets of buffers: a step reads one and writes the other.

    A step that fails has not touched the set that it read, so the stream is where
    it was. The memory's tensors are large and change in one slot a step; past and
    present share their buffer, and a repeated step writes the same slot again.

    The buffers may hold more rows than are in use: a batch whose streams come and go
    binds the first rows of the same buffers.

    Args:
        engine: The engine that steps this state.
        batch: Number of rows.
    """

    def __init__(self, engine: OnnxEngine, batch: int) -> None:
        self.batch = batch
        self.table = engine.state
        self._vocab_size = engine.vocab_size
        self.side = 0
        self._allocate(batch)

    def _allocate(self, capacity: int) -> None:
        shared = {row.name: row.zeros(capacity) for row in self.table if is_shared(row)}
        self._capacity = capacity
        self._sides = [
            {row.name: shared.get(row.name, row.zeros(capacity)) for row in self.table}
            for _ in range(2)
        ]
        self._ids = np.zeros((capacity, 1), np.int64)
        self._learn = np.ones(capacity, np.float32)
        # Two of these as well: a step that fails leaves the last prediction alone.
        shape = (capacity, 1, self._vocab_size)
        self._logits = [np.zeros(shape, np.float32) for _ in range(2)]
        # For each number of rows that was stepped, its calls; a call has a binding for either side.
        self.calls: dict[int, list[list[_Binding]]] = {}
        self.bindings: dict[range, list[_Binding]] = {}
        self._use(self.batch)

    def _use(self, batch: int) -> None:
        """Look at the first rows of the buffers; they stay contiguous, and where they are."""
        self.batch = batch
        self.sides = [{name: a[:batch] for name, a in side.items()} for side in self._sides]
        self.ids, self.learn = self._ids[:batch], self._learn[:batch]
        self.logits = [a[:batch] for a in self._logits]

    def read(self) -> dict[str, npt.NDArray[Any]]:
        """A copy of every state tensor, by name."""
        return {name: value.copy() for name, value in self.sides[self.side].items()}

    def write(self, values: dict[str, npt.NDArray[Any]]) -> None:
        """Replace every state tensor.

        Raises:
            EngineError: A tensor is missing or has another shape or type.
        """
        check_state(self.table, self.batch, values)
        for row in self.table:
            self.sides[self.side][row.name][...] = values[row.name]

    def resize(self, batch: int) -> None:
        """Change the number of rows; see :meth:`.EngineState.resize`."""
        rows = min(self.batch, batch)
        if batch > self._capacity:
            before = self.sides[self.side]
            self._allocate(max(batch, 2 * self._capacity))
            for name, value in before.items():
                self._sides[self.side][name][:rows] = value[:rows]
        for value in self._sides[self.side].values():
            value[rows:batch] = 0
        self._use(batch)

    def mend(self) -> None:
        """Clear what a failed step wrote into a tensor that has one side.

        That is a slot of the memory, which the next step writes before it reads.
        """
        for row in self.table:
            if is_shared(row) and row.dtype.startswith("float"):
                value = self.sides[self.side][row.name]
                value[~np.isfinite(value)] = 0

    def copy_row(self, row: int, source: OnnxState, source_row: int) -> None:
        """Copy one row of a state; see :meth:`.EngineState.copy_row`."""
        theirs = source.sides[source.side]
        for name, value in self.sides[self.side].items():
            value[row] = theirs[name][source_row]


class OnnxEngine(OnnxGraphs):
    """Runs a bundle's graphs on ONNX Runtime; a step allocates nothing.

    Args:
        bundle: The bundle.
        provider: ``cpu``. Another one works too, but copies the state to its device and back at
            each step: see :class:`.onnx_device_engine.OnnxDeviceEngine`.
        threads: Threads that one call may use.
    """

    def zero_state(self, batch: int = 1) -> OnnxState:
        """The start of a stream: zeros, everywhere."""
        return OnnxState(self, batch)

    def prefill(
        self, tokens: npt.NDArray[Any], state: OnnxState, learn: Learn = 1.0, last: bool = False
    ) -> npt.NDArray[Any]:
        """Read tokens ``[B, T]`` in chunks; see :meth:`.Engine.prefill`.

        A graph that predicts after the last token only cannot give the others' logits: where
        those are wanted, tokens are read step by step.
        """
        session = self._session("prefill")
        tokens = np.ascontiguousarray(tokens, np.int64)
        batch, length = tokens.shape
        state.learn[...] = learn
        logits = np.empty((batch, 1 if last else length, self.vocab_size), np.float32)
        before = state.read()
        try:
            if self.last_logits and not last:
                for at in range(length):
                    logits[:, at] = self.step(tokens[:, at], state, learn)
            else:
                self._prefill_chunks(session, tokens, state, logits)
        except EngineError:
            state.write(before)
            raise
        return logits

    def _prefill_chunks(
        self, session: Any, tokens: npt.NDArray[Any], state: OnnxState, logits: npt.NDArray[Any]
    ) -> None:
        for start in range(0, tokens.shape[1], _CHUNK):
            chunk = np.ascontiguousarray(tokens[:, start : start + _CHUNK])
            rows = 1 if self.last_logits else chunk.shape[1]
            part = np.empty((len(chunk), rows, self.vocab_size), np.float32)
            run_bound(session, self._bind(session, state, state.side, chunk, part).inner)
            check_finite(part)
            state.side ^= 1
            if logits.shape[1] == tokens.shape[1]:
                logits[:, start : start + _CHUNK] = part
            else:
                logits[:, 0] = part[:, -1]

    def step(
        self, tokens: npt.NDArray[Any], state: OnnxState, learn: Learn = 1.0
    ) -> npt.NDArray[Any]:
        """Read one token a row; see :meth:`.Engine.step`."""
        session = self._sessions.get("decode") or self._session("decode")
        calls = state.calls.get(state.batch)
        if calls is None:
            calls = state.calls[state.batch] = self._calls(session, state)
        # A token that does not exist would fail too, but only after its entry was stored.
        if len(tokens) == 1:
            sound = 0 <= tokens[0] < self.vocab_size
        else:
            sound = bool(tokens.min() >= 0 and tokens.max() < self.vocab_size)
        if not sound:
            raise EngineError(
                f"tokens must lie between 0 and {self.vocab_size - 1}; the stream is where it was"
            )
        state.ids[:, 0] = tokens
        state.learn[...] = learn
        for sides in calls:
            run_bound(session, sides[state.side].inner)
        logits = state.logits[state.side][:, 0]
        try:
            check_finite(logits)
        except EngineError:
            state.mend()
            raise
        state.side ^= 1
        return logits

    def _calls(self, session: Any, state: OnnxState) -> list[list[_Binding]]:
        """The calls of one step of a batch."""
        rows = range(state.batch)
        spans = [rows[at : at + _ROWS] for at in range(0, state.batch, _ROWS)]
        for span in spans:
            if span not in state.bindings:
                at = slice(span.start, span.stop)
                state.bindings[span] = [
                    self._bind(session, state, side, state.ids, state.logits[side], at)
                    for side in range(2)
                ]
        return [state.bindings[span] for span in spans]

    def _bind(
        self,
        session: Any,
        state: OnnxState,
        side: int,
        ids: npt.NDArray[Any],
        logits: npt.NDArray[Any],
        rows: slice = slice(None),
    ) -> _Binding:
        """Bind a call that reads some rows of one side of the state and writes the other."""
        binding = session.io_binding()
        inputs = {"input_ids": ids, "learn": state.learn}
        inputs.update({row.past: state.sides[side][row.name] for row in self.state})
        outputs = {"logits": logits}
        outputs.update({row.present: state.sides[side ^ 1][row.name] for row in self.state})
        inputs = {name: array[rows] for name, array in inputs.items()}
        outputs = {name: array[rows] for name, array in outputs.items()}
        for name, array in inputs.items():
            binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        for name, array in outputs.items():
            binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        # The binding holds bare addresses; the arrays must live as long as it does.
        return _Binding(binding, (inputs, outputs))


class _Binding:
    """An I/O binding and the arrays whose addresses it holds."""

    def __init__(self, inner: Any, arrays: tuple[Any, ...]) -> None:
        self.inner = inner
        self.arrays = arrays

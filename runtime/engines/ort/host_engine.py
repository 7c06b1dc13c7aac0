"""The engine on ONNX Runtime with the streams' state in the host's memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import EngineError
from ..base import EngineState, Learn, TokenGenerator
from ..checks import check_finite, check_tokens, own_state
from ..sides import SIDES, following
from .generate_graph import GraphGenerator
from .host_state import Binding, OnnxState
from .sessions import OnnxGraphs, run_bound

__all__ = ["OnnxEngine", "OnnxState"]

_CHUNK = 128
"""Tokens per call of the prefill graph: more take more memory, and no less time."""

_ROWS = 16
"""Rows per call of a step: with more, what a node leaves for the next no longer fits the cache."""


class OnnxEngine(OnnxGraphs):
    """Runs a bundle's graphs on ONNX Runtime; a step allocates nothing.

    Args:
        bundle: The bundle.
        provider: ``cpu``. Another one works too, but copies the state to its device and back at
            each step: see :class:`.device_engine.OnnxDeviceEngine`.
        threads: Threads that one call may use.
    """

    @property
    def independent_rows(self) -> bool:
        """Whether a row gives what it gives alone: always, since calls are cut so."""
        return True

    def zero_state(self, batch: int = 1) -> OnnxState:
        """Return the state at the start of a stream: zeros."""
        return OnnxState(self.state_table, self.vocab_size, batch)

    def prefill(
        self, tokens: npt.NDArray[Any], state: EngineState, learn: Learn = 1.0, last: bool = False
    ) -> npt.NDArray[Any]:
        """Read tokens ``[B, T]`` in chunks; see :meth:`.Engine.prefill`."""
        session = self._session("prefill")
        state = own_state(state, OnnxState)
        tokens = np.ascontiguousarray(tokens, np.int64)
        check_tokens(tokens, self.vocab_size)
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
        except BaseException:
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
            for span in self._spans(len(chunk), len(chunk)):
                rows_of_span = slice(span.start, span.stop)
                bound = self._bind(session, state, state.side, chunk, part, rows_of_span)
                run_bound(session, bound.io)
            check_finite(part)
            state.side = following(state.side)
            if logits.shape[1] == tokens.shape[1]:
                logits[:, start : start + _CHUNK] = part
            else:
                logits[:, 0] = part[:, -1]

    def step(
        self, tokens: npt.NDArray[Any], state: EngineState, learn: Learn = 1.0
    ) -> npt.NDArray[Any]:
        """Read one token per row; see :meth:`.Engine.step`."""
        session = self._sessions.get("decode") or self._session("decode")
        state = own_state(state, OnnxState)
        if state.session is not session:  # the first step, or the engine was closed in between
            state.bind_to(session)
        calls = state.calls.get(state.batch)
        if calls is None:
            calls = state.calls[state.batch] = self._calls(session, state)
        check_tokens(tokens, self.vocab_size)
        state.ids[:, 0] = tokens
        state.learn[...] = learn
        for sides in calls:
            run_bound(session, sides[state.side].io)
        logits = state.logits[state.side][:, 0]
        try:
            check_finite(logits)
        except EngineError:
            state.repair()
            raise
        state.side = following(state.side)
        return logits

    def generator(self) -> TokenGenerator | None:
        """Return the bundle's generating graph, on this engine's states.

        Raises:
            BundleError: The bundle has none.
        """
        return GraphGenerator(self, self.threads)

    def _calls(self, session: Any, state: OnnxState) -> list[list[Binding]]:
        """The calls of one step of a batch."""
        spans = self._spans(state.batch, _ROWS)
        for span in spans:
            if span not in state.bindings:
                at = slice(span.start, span.stop)
                state.bindings[span] = [
                    self._bind(session, state, side, state.ids, state.logits[side], at)
                    for side in range(SIDES)
                ]
        return [state.bindings[span] for span in spans]

    def _spans(self, batch: int, largest: int) -> list[range]:
        """The rows that one call computes together."""
        together = largest if self.bundle.independent_rows else 1
        return [range(batch)[at : at + together] for at in range(0, batch, together)]

    def _bind(
        self,
        session: Any,
        state: OnnxState,
        side: int,
        ids: npt.NDArray[Any],
        logits: npt.NDArray[Any],
        rows: slice = slice(None),
    ) -> Binding:
        """Bind a call that reads some rows of one side of the state and writes the next."""
        binding = session.io_binding()
        inputs = {"input_ids": ids, "learn": state.learn}
        inputs.update({row.past: state.sides[side][row.name] for row in self.state_table})
        outputs = {"logits": logits}
        present = state.sides[following(side)]
        outputs.update({row.present: present[row.name] for row in self.state_table})
        inputs = {name: array[rows] for name, array in inputs.items()}
        outputs = {name: array[rows] for name, array in outputs.items()}
        for name, array in inputs.items():
            binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        for name, array in outputs.items():
            binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        return Binding(binding, (inputs, outputs))

"""The engine on ONNX Runtime."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .bundle import Bundle
from .contract import StateTensor, parse_state_table
from .engine import Learn
from .errors import BundleError, EngineError
from .providers import candidates, create_session, node_owner

try:
    import onnxruntime as ort
except ImportError as missing:  # pragma: no cover - the extra is not installed
    raise EngineError(
        "no inference engine is installed; install one with: pip install 'rillet[cpu]'"
    ) from missing

__all__ = ["OnnxEngine", "OnnxState", "check_contract"]

_CHUNK = 256
"""Tokens fed to the prefill graph at a time: its attention grows with the square."""

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
        shared = {row.name: row.zeros(capacity) for row in self.table if _is_shared(row)}
        self._capacity = capacity
        self._sides = [
            {row.name: shared.get(row.name, row.zeros(capacity)) for row in self.table}
            for _ in range(2)
        ]
        self._ids = np.zeros((capacity, 1), np.int64)
        self._learn = np.ones(capacity, np.float32)
        self._logits = np.zeros((capacity, 1, self._vocab_size), np.float32)
        # For each number of rows that was stepped, its calls; a call has a binding for either side.
        self.calls: dict[int, list[list[_Binding]]] = {}
        self.bindings: dict[range, list[_Binding]] = {}
        self._use(self.batch)

    def _use(self, batch: int) -> None:
        """Look at the first rows of the buffers; they stay contiguous, and where they are."""
        self.batch = batch
        self.sides = [{name: a[:batch] for name, a in side.items()} for side in self._sides]
        self.ids, self.learn = self._ids[:batch], self._learn[:batch]
        self.logits = self._logits[:batch]

    def read(self) -> dict[str, npt.NDArray[Any]]:
        """A copy of every state tensor, by name."""
        return {name: value.copy() for name, value in self.sides[self.side].items()}

    def write(self, values: dict[str, npt.NDArray[Any]]) -> None:
        """Replace every state tensor.

        Raises:
            EngineError: A tensor is missing or has another shape or type.
        """
        for row in self.table:
            value = values.get(row.name)
            wanted = (self.batch, *row.shape)
            if value is None or value.shape != wanted or value.dtype != np.dtype(row.dtype):
                raise EngineError(
                    f"state tensor {row.name!r} must be {row.dtype} of shape {wanted}; "
                    f"got {None if value is None else (str(value.dtype), value.shape)}"
                )
        for row in self.table:
            self.sides[self.side][row.name][...] = values[row.name]

    def resize(self, batch: int) -> None:
        """Change the number of rows; see :meth:`rillet.runtime.engine.EngineState.resize`."""
        rows = min(self.batch, batch)
        if batch > self._capacity:
            before = self.sides[self.side]
            self._allocate(max(batch, 2 * self._capacity))
            for name, value in before.items():
                self._sides[self.side][name][:rows] = value[:rows]
        for value in self._sides[self.side].values():
            value[rows:batch] = 0
        self._use(batch)

    def copy_row(self, row: int, source: OnnxState, source_row: int) -> None:
        """Copy one row of a state; see :meth:`rillet.runtime.engine.EngineState.copy_row`."""
        theirs = source.sides[source.side]
        for name, value in self.sides[self.side].items():
            value[row] = theirs[name][source_row]


class OnnxEngine:
    """Runs a bundle's graphs on ONNX Runtime.

    A graph is loaded when it is first needed, and the provider is chosen with the first: by
    a real step, since that is what shows whether it works.

    Args:
        bundle: The bundle.
        provider: ``cpu``, ``cuda``, ``tensorrt``, or ``auto`` for the best that works.
        threads: Threads that one call may use.
        allow_fallback: Whether the CPU will do where the provider cannot run.

    Raises:
        EngineError: There is no such provider.
    """

    def __init__(
        self,
        bundle: Bundle,
        provider: str = "auto",
        threads: int = 1,
        allow_fallback: bool = False,
    ) -> None:
        self._candidates = candidates(provider, allow_fallback)
        self.bundle = bundle
        self.state = bundle.state
        self.vocab_size = bundle.vocab_size
        self.last_logits = bundle.last_logits
        self.threads = threads
        self._chosen: str | None = None
        self._sessions: dict[str, Any] = {}
        self._lock = threading.Lock()

    @property
    def provider(self) -> str:
        """The execution provider that owns the graphs' nodes.

        Raises:
            EngineError: None that may be used can run here.
        """
        return node_owner(self._session("decode"))

    @property
    def version(self) -> str:
        """The engine's name and version."""
        return f"onnxruntime {ort.__version__}"

    def zero_state(self, batch: int = 1) -> OnnxState:
        """The start of a stream: zeros, everywhere."""
        return OnnxState(self, batch)

    def prefill(
        self, tokens: npt.NDArray[Any], state: OnnxState, learn: Learn = 1.0, last: bool = False
    ) -> npt.NDArray[Any]:
        """Read tokens ``[B, T]`` in chunks; see :meth:`rillet.runtime.engine.Engine.prefill`.

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
            _run(session, self._bind(session, state, state.side, chunk, part))
            state.side ^= 1
            if logits.shape[1] == tokens.shape[1]:
                logits[:, start : start + _CHUNK] = part
            else:
                logits[:, 0] = part[:, -1]

    def step(
        self, tokens: npt.NDArray[Any], state: OnnxState, learn: Learn = 1.0
    ) -> npt.NDArray[Any]:
        """Read one token a row; see :meth:`rillet.runtime.engine.Engine.step`."""
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
            _run(session, sides[state.side])
        state.side ^= 1
        return state.logits[:, 0]

    def _calls(self, session: Any, state: OnnxState) -> list[list[_Binding]]:
        """The calls of one step of a batch."""
        rows = range(state.batch)
        spans = [rows[at : at + _ROWS] for at in range(0, state.batch, _ROWS)]
        for span in spans:
            if span not in state.bindings:
                at = slice(span.start, span.stop)
                state.bindings[span] = [
                    self._bind(session, state, side, state.ids, state.logits, at)
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

    def _session(self, graph: str) -> Any:
        with self._lock:
            if self._chosen is None:
                self._choose()
            if graph not in self._sessions:
                assert self._chosen is not None
                self._sessions[graph] = self._load(self.bundle.graph(graph), self._chosen)
            return self._sessions[graph]

    def _choose(self) -> None:
        """Take the first provider on which a real step succeeds."""
        path = self.bundle.graph("decode")
        failures = []
        for provider in self._candidates:
            try:
                session = self._load(path, provider)
                state = OnnxState(self, 1)
                _run(session, self._bind(session, state, 0, state.ids, state.logits))
                if not np.isfinite(state.logits).all():
                    raise EngineError("a step gives numbers that are not finite")
            except EngineError as error:
                failures.append(f"provider {provider!r} cannot run here: {error}")
                continue
            if failures:
                warnings.warn(f"{failures[0]}; using {provider!r}", stacklevel=2)
            self._sessions["decode"], self._chosen = session, provider
            return
        raise EngineError("; ".join(failures))

    def close(self) -> None:
        """Let go of the graphs; a call after that loads them anew."""
        with self._lock:
            self._sessions.clear()

    def _load(self, path: Path, provider: str) -> Any:
        try:
            session = create_session(str(path), provider, self.threads)
        except EngineError:
            raise
        except Exception as error:  # onnxruntime's exceptions share no public base
            if provider != "cpu":
                raise EngineError(str(error)) from error
            raise BundleError(f"onnxruntime cannot load {path}: {error}") from error
        check_contract(path, session, self.state)
        return session


class _Binding:
    """An I/O binding and the arrays whose addresses it holds."""

    def __init__(self, inner: Any, arrays: tuple[Any, ...]) -> None:
        self.inner = inner
        self.arrays = arrays


def _run(session: Any, binding: _Binding) -> None:
    try:
        session.run_with_iobinding(binding.inner)
    except Exception as error:  # onnxruntime's exceptions share no public base
        raise EngineError(
            f"onnxruntime failed in a step ({error}); the stream is where it was before it"
        ) from error


def _is_shared(row: StateTensor) -> bool:
    return row.name.startswith("memory_")


def check_contract(
    path: Path,
    session: Any,
    state: list[StateTensor],
    given: tuple[str, ...] = ("input_ids", "learn"),
    made: tuple[str, ...] = ("logits",),
) -> None:
    """Refuse a graph without the inputs and outputs that the bundle's state table promises.

    Args:
        path: The graph's file.
        session: The graph, loaded.
        state: The state table.
        given: Its inputs beside the state.
        made: Its outputs beside the state.

    Raises:
        BundleError: Something is missing, or there is more.
    """
    inputs = {entry.name for entry in session.get_inputs()}
    outputs = {entry.name for entry in session.get_outputs()}
    wanted_inputs = {*given, *(row.past for row in state)}
    wanted_outputs = {*made, *(row.present for row in state)}
    differing = sorted((inputs ^ wanted_inputs) | (outputs ^ wanted_outputs))
    if differing:
        raise BundleError(
            f"{path} does not fit the state table of its bundle: {', '.join(differing)} "
            "stand in one of them only; export the bundle again"
        )
    table = session.get_modelmeta().custom_metadata_map.get("rillet.state")
    if table is not None and parse_state_table(table) != state:
        raise BundleError(f"{path} carries another state table than its bundle; export again")

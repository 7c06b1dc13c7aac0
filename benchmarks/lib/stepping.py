"""Stepping an ONNX graph with two bindings that swap the state's buffers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx

from rillet.runtime.engines.ort.providers import create_session

from .arrays import Array, FloatArray, TokenArray

__all__ = ["Steps", "bind", "past", "present", "state_sides"]

_IN_PLACE = ("memory_", "cache_")
"""Prefixes of state that changes in one slot per step."""

_TYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}


class Steps:
    """A burst that feeds a graph tokens, reading the state from one side and writing the other.

    The memory's tensors share one buffer on both sides, as in the runtime, and so does a
    transformer's cache.

    Args:
        graph: A graph with ``input_ids``, ``past.*``, ``logits`` and ``present.*``.
        tokens: The tokens of a burst; their number is a multiple of ``length``.
        length: Tokens per call T.
        shared: Whether past and present of the memory share a buffer.
        choose: Turns the logits ``[V]`` of each call into a token; greedy by default.
        last: Whether the graph returns the last logits only.
    """

    def __init__(
        self,
        graph: onnx.ModelProto,
        tokens: TokenArray,
        length: int = 1,
        shared: bool = True,
        choose: Callable[[Array], Any] = np.ndarray.argmax,
        last: bool = False,
    ) -> None:
        self.session = create_session(graph.SerializeToString(), "cpu", 1)
        self.chunks = tokens.reshape(-1, 1, length)
        self.length, self.choose, self.side = length, choose, 0
        self.sides = state_sides(self.session, shared)
        self.ids = np.zeros((1, length), np.int64)
        steps = 1 if last else length
        self.logits = np.zeros((1, steps, _shape(self.session.get_outputs()[0])[2]), np.float32)
        inputs: dict[str, Array] = {"input_ids": self.ids, "learn": np.ones(1, np.float32)}
        self.bindings = [
            bind(
                self.session,
                inputs | past(self.sides[side]),
                {"logits": self.logits} | present(self.sides[side ^ 1]),
            )
            for side in range(2)
        ]
        self._kept_alive = inputs  # a binding holds bare addresses

    @property
    def state_bytes(self) -> int:
        """Bytes that a stream keeps between two tokens."""
        return sum(value.nbytes for value in self.sides[0].values())

    def __call__(self) -> int:
        """Read the burst's tokens once; returns their number."""
        for chunk in self.chunks:
            self.read(chunk)
        return self.chunks.size

    def read(self, chunk: Any) -> Any:
        """Make one call; returns the token chosen."""
        self.ids[...] = chunk
        self.session.run_with_iobinding(self.bindings[self.side])
        self.side ^= 1
        return self.choose(self.logits[0, -1])

    def run_all(self, tokens: TokenArray) -> FloatArray:
        """Read other tokens; returns the logits after each call, ``[calls, V]``."""
        rows = []
        for chunk in tokens.reshape(-1, 1, self.length):
            self.read(chunk)
            rows.append(self.logits[0, -1].copy())
        return np.stack(rows)


def state_sides(session: Any, shared: bool) -> list[dict[str, Array]]:
    """Two sets of zeros for the state of one stream, by the name without ``past.``."""
    sides: list[dict[str, Array]] = [{}, {}]
    for entry in session.get_inputs():
        name = entry.name.removeprefix("past.")
        if name == entry.name:
            continue
        for side in sides:
            side[name] = np.zeros(_shape(entry), _TYPES[entry.type])
        if shared and name.startswith(_IN_PLACE):
            sides[1][name] = sides[0][name]
    return sides


def past(side: dict[str, Array]) -> dict[str, Array]:
    """A side as inputs."""
    return {f"past.{name}": value for name, value in side.items()}


def present(side: dict[str, Array]) -> dict[str, Array]:
    """A side as outputs."""
    return {f"present.{name}": value for name, value in side.items()}


def bind(session: Any, inputs: dict[str, Array], outputs: dict[str, Array]) -> Any:
    """An I/O binding by address; inputs that the graph does not have are left out."""
    known = {entry.name for entry in session.get_inputs()}
    binding = session.io_binding()
    for name, array in inputs.items():
        if name in known:
            binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
    for name, array in outputs.items():
        binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
    return binding


def _shape(entry: Any) -> list[int]:
    """The shape for one stream: free dimensions are 1."""
    return [size if isinstance(size, int) else 1 for size in entry.shape]

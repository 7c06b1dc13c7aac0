"""Running a graph with two swapped bindings, and timing many things in turn."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from rillet.runtime.engines.ort.providers import create_session

__all__ = ["Burst", "Steps", "least_times"]

Burst = Callable[[], int]
"""Does some work and says for how many tokens."""

_IN_PLACE = ("memory_", "cache_")
"""State that changes in one slot a step."""

_TYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64}


class Steps:
    """Feeds a graph tokens, a chunk a call; its state is read on one side and written on the other.

    The memory's tensors have one buffer for both sides, as in the runtime, and so has a
    transformer's cache.

    Args:
        graph: A graph with ``input_ids``, ``past.*``, ``logits`` and ``present.*``.
        tokens: What a burst reads; a multiple of ``length``.
        length: Tokens a call T.
        shared: Whether past and present of the memory share a buffer.
        choose: What is done with the logits ``[V]`` after each call; the greedy choice by default.
        last: Whether the graph gives the last logits only.
    """

    def __init__(
        self,
        graph: onnx.ModelProto,
        tokens: npt.NDArray[np.int64],
        length: int = 1,
        shared: bool = True,
        choose: Callable[[npt.NDArray[Any]], Any] = np.ndarray.argmax,
        last: bool = False,
    ) -> None:
        self.session = create_session(graph.SerializeToString(), "cpu", 1)
        self.chunks = tokens.reshape(-1, 1, length)
        self.length, self.choose, self.side = length, choose, 0
        self.sides = state_sides(self.session, shared)
        self.ids = np.zeros((1, length), np.int64)
        steps = 1 if last else length
        self.logits = np.zeros((1, steps, _shape(self.session.get_outputs()[0])[2]), np.float32)
        given = {"input_ids": self.ids, "learn": np.ones(1, np.float32)}
        self.bindings = [
            bind(self.session, {**given, **past(self.sides[side])},
                 {"logits": self.logits, **present(self.sides[side ^ 1])})
            for side in range(2)
        ]  # fmt: skip
        self._kept = given  # a binding holds bare addresses

    def __call__(self) -> int:
        """Read all tokens once; returns how many."""
        for chunk in self.chunks:
            self.read(chunk)
        return self.chunks.size

    def read(self, chunk: Any) -> Any:
        """One call; returns what was chosen."""
        self.ids[...] = chunk
        self.session.run_with_iobinding(self.bindings[self.side])
        self.side ^= 1
        return self.choose(self.logits[0, -1])

    def run_all(self, tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """The logits after each call, ``[calls, V]``."""
        rows = []
        for chunk in tokens.reshape(-1, 1, self.length):
            self.read(chunk)
            rows.append(self.logits[0, -1].copy())
        return np.stack(rows)


def state_sides(session: Any, shared: bool) -> list[dict[str, npt.NDArray[Any]]]:
    """Two sets of zeros for the state of one stream, by the name without ``past.``."""
    sides: list[dict[str, npt.NDArray[Any]]] = [{}, {}]
    for entry in session.get_inputs():
        name = entry.name.removeprefix("past.")
        if name == entry.name:
            continue
        for side in sides:
            side[name] = np.zeros(_shape(entry), _TYPES[entry.type])
        if shared and name.startswith(_IN_PLACE):
            sides[1][name] = sides[0][name]
    return sides


def past(side: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """A side as inputs."""
    return {f"past.{name}": value for name, value in side.items()}


def present(side: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """A side as outputs."""
    return {f"present.{name}": value for name, value in side.items()}


def bind(session: Any, inputs: dict[str, Any], outputs: dict[str, Any]) -> Any:
    """An I/O binding by address; inputs that the graph lacks are left out."""
    wanted = {entry.name for entry in session.get_inputs()}
    binding = session.io_binding()
    for name, array in inputs.items():
        if name in wanted:
            binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
    for name, array in outputs.items():
        binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
    return binding


def least_times(bursts: dict[str, Burst], count: int) -> dict[str, float]:
    """Microseconds a token, the least of several bursts.

    They take turns, so that a busy machine slows all alike. Each is run once untimed before,
    since the one before it has left its own weights in the processor's cache. What counts is the
    time of this thread, which does all the work: the clock on the wall would also count other
    programs that are given the core, and a burst of ten milliseconds always meets them on a busy
    machine (prefill and the plain export took 2.5 times as long by it, short bursts the same).
    """
    best = dict.fromkeys(bursts, float("inf"))
    for _ in range(count):
        for name, burst in bursts.items():
            burst()
            start = time.thread_time()
            tokens = burst()
            best[name] = min(best[name], (time.thread_time() - start) / tokens * 1e6)
    return best


def _shape(entry: Any) -> list[int]:
    """Sizes for one stream: whatever is free is 1."""
    return [size if isinstance(size, int) else 1 for size in entry.shape]

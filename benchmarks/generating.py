"""Drawing tokens inside the graph, and outside by stepping it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx

from rillet.runtime import SamplingParams
from rillet.runtime.engines.ort.providers import create_session
from rillet.runtime.sampling.sampler import Sampler
from stepping import Burst, Steps, bind, past, present, state_sides

__all__ = ["Generation", "check_same_tokens", "host_sampler"]


class Generation:
    """Calls of the generating graph with two swapped bindings, each for K tokens.

    Args:
        graph: The generating graph.
        params: How to sample.
        count: Tokens a call K.
        calls: Calls a burst.
    """

    def __init__(
        self, graph: onnx.ModelProto, params: SamplingParams, count: int, calls: int
    ) -> None:
        self.session = create_session(graph.SerializeToString(), "cpu", 1)
        self.calls, self.count, self.side = calls, count, 0
        self.random = np.random.Generator(np.random.PCG64(params.seed))
        sizes = {entry.name: entry.shape for entry in self.session.get_inputs()}
        vocab_size = sizes["last_logits"][1]
        # The memory's too: its past is what the loop begins with.
        sides = state_sides(self.session, shared=False)
        self.logits = np.zeros((1, 1, vocab_size), np.float32)
        self.uniforms = np.zeros((1, count), np.float64)
        self.tokens = np.zeros((1, count), np.int64)
        given = {
            "last_logits": self.logits[:, 0],
            "uniforms": self.uniforms,
            "temperature": np.asarray([params.temperature], np.float64),
            "top_k": np.asarray([params.top_k], np.int64),
            "top_p": np.asarray([params.top_p], np.float64),
            "end_token": np.asarray([-1], np.int64),
            "learn": np.ones(1, np.float32),
        }
        # The logits of a call are read before they are written: they need one buffer.
        written = {"tokens": self.tokens, "logits": self.logits}
        self.bindings = [
            bind(self.session, {**given, **past(sides[side])},
                 {**written, **present(sides[side ^ 1])})
            for side in range(2)
        ]  # fmt: skip
        self._kept = (given, sides)  # a binding holds bare addresses

    def __call__(self) -> int:
        """Draw for all calls of a burst; returns how many tokens."""
        for _ in range(self.calls):
            self.draw()
        return self.calls * self.count

    def draw(self) -> npt.NDArray[np.int64]:
        """K tokens."""
        self.random.random(out=self.uniforms)
        self.session.run_with_iobinding(self.bindings[self.side])
        self.side ^= 1
        return self.tokens[0]


def host_sampler(steps: Steps, params: SamplingParams, count: int) -> Burst:
    """Steps a graph with what the host's sampler draws."""
    steps.choose = Sampler(params).draw
    token = steps.read(0)

    def burst() -> int:
        nonlocal token
        for _ in range(count):
            token = steps.read(token)
        return count

    return burst


def check_same_tokens(
    graph: onnx.ModelProto, decode: onnx.ModelProto, params: SamplingParams, first: int, count: int
) -> None:
    """Both ways draw the same tokens, from zeros."""
    inside = Generation(graph, params, count, 1)
    stepped = Steps(decode, np.asarray([first]), choose=Sampler(params).draw)
    # Both begin with logits that are all alike.
    drawn = [stepped.choose(inside.logits[0, 0])]
    while len(drawn) < 2 * count:
        drawn.append(stepped.read(drawn[-1]))
    found = [*inside.draw(), *inside.draw()]
    if found != drawn:
        raise SystemExit(f"generate.onnx draws other tokens than the host with {params}")

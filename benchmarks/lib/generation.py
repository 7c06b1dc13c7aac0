"""Drawing tokens inside ``generate.onnx``, and outside by stepping ``decode.onnx``."""

from __future__ import annotations

import numpy as np
import onnx

from rillet.runtime import SamplingParams
from rillet.runtime.engines.ort.providers import create_session
from rillet.runtime.sampling.sampler import Sampler

from .arrays import TokenArray
from .bursts import Burst
from .stepping import Steps, bind, past, present, state_sides

__all__ = ["InGraphGeneration", "check_same_tokens", "host_generation"]


class InGraphGeneration:
    """A burst of calls of the generating graph, each for K tokens, with two swapped bindings.

    Args:
        graph: The generating graph.
        params: How to sample.
        count: Tokens per call K.
        calls: Calls per burst.
    """

    def __init__(
        self, graph: onnx.ModelProto, params: SamplingParams, count: int, calls: int
    ) -> None:
        self.session = create_session(graph.SerializeToString(), "cpu", 1)
        self.calls, self.count, self.side = calls, count, 0
        self.random = np.random.Generator(np.random.PCG64(params.seed))
        sizes = {entry.name: entry.shape for entry in self.session.get_inputs()}
        vocab_size = sizes["last_logits"][1]
        # The memory is not shared either: its past is the loop's initial value.
        sides = state_sides(self.session, shared=False)
        self.logits = np.zeros((1, 1, vocab_size), np.float32)
        self.uniforms = np.zeros((1, count), np.float64)
        self.tokens = np.zeros((1, count), np.int64)
        inputs = {
            "last_logits": self.logits[:, 0],
            "uniforms": self.uniforms,
            "temperature": np.asarray([params.temperature], np.float64),
            "top_k": np.asarray([params.top_k], np.int64),
            "top_p": np.asarray([params.top_p], np.float64),
            "end_token": np.asarray([-1], np.int64),
            "learn": np.ones(1, np.float32),
        }
        # A call reads the logits before it writes them, so one buffer is enough.
        outputs = {"tokens": self.tokens, "logits": self.logits}
        self.bindings = [
            bind(self.session, inputs | past(sides[side]), outputs | present(sides[side ^ 1]))
            for side in range(2)
        ]
        self._kept_alive = (inputs, sides)  # a binding holds bare addresses

    def __call__(self) -> int:
        """Make the calls of a burst; returns the number of tokens drawn."""
        for _ in range(self.calls):
            self.draw()
        return self.calls * self.count

    def draw(self) -> TokenArray:
        """Make one call; returns its K tokens."""
        self.random.random(out=self.uniforms)
        self.session.run_with_iobinding(self.bindings[self.side])
        self.side ^= 1
        tokens: TokenArray = self.tokens[0]
        return tokens


def host_generation(steps: Steps, params: SamplingParams, count: int) -> Burst:
    """A burst that steps a graph with tokens drawn by the host's sampler."""
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
    """Stop unless both ways draw the same tokens from a zero state.

    Raises:
        SystemExit: They do not.
    """
    inside = InGraphGeneration(graph, params, count, 1)
    stepped = Steps(decode, np.asarray([first]), choose=Sampler(params).draw)
    # Both start from uniform logits.
    drawn = [stepped.choose(inside.logits[0, 0])]
    while len(drawn) < 2 * count:
        drawn.append(stepped.read(drawn[-1]))
    if [*inside.draw(), *inside.draw()] != drawn:
        raise SystemExit(f"generate.onnx and the host draw different tokens with {params}")

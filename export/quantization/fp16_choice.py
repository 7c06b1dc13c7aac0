"""The choice of products to lower to float16 within the gate's tolerance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from ...runtime.state_table import StateTensor
from .graph_runner import stream_graph
from .matmuls import find_matmuls

__all__ = ["Lower", "lower_within"]

Lower = Callable[[onnx.ModelProto, frozenset[str]], onnx.ModelProto]
"""Lowers the products of the named nodes and leaves the others."""

_MARGIN = 0.7
"""Share of the tolerance to use here: longer texts show larger differences."""

_TEXT, _CHUNK = 1_024, 256
_NOISE = (3, 100)


def lower_within(
    model: onnx.ModelProto,
    tolerance: float,
    lower: Lower,
    recurrence: bool,
    text: npt.NDArray[np.int64],
    state: Sequence[StateTensor],
) -> onnx.ModelProto:
    """Lower as many products as the tolerance allows, those with the least error per size first.

    Lower and measure each product alone. Then, in order of cost, lower as many together as keep
    logits and state within the tolerance, on a text and on random tokens.

    Args:
        model: The graph in float32.
        tolerance: Largest |difference| of a logit or a state value.
        lower: Makes the lowered graph.
        recurrence: Whether the recurrence may be lowered.
        text: Tokens ``[1, T]`` to measure on.
        state: The state table.

    Returns:
        The lowered graph.
    """
    matmuls = find_matmuls(model, recurrence)
    logits = next(entry for entry in model.graph.output if entry.name == "logits")
    vocab_size = logits.type.tensor_type.shape.dim[-1].dim_value
    noise = np.random.default_rng(1).integers(0, vocab_size, _NOISE)
    texts = [part for part in (text[:, :_TEXT], noise) if part.size]
    expected = [_read(model, tokens, state) for tokens in texts]

    def difference(names: Sequence[str]) -> float:
        lowered = lower(model, frozenset(names))
        actual = [_read(lowered, tokens, state) for tokens in texts]
        return max(_largest_difference(a, b) for a, b in zip(expected, actual, strict=True))

    everything = [matmul.node.name for matmul in matmuls]
    if not matmuls or difference(everything) <= _MARGIN * tolerance:
        return lower(model, frozenset(everything))
    costs = {m.node.name: difference([m.node.name]) ** 2 / m.array.size for m in matmuls}
    order = sorted(everything, key=lambda name: costs[name])
    # The difference grows with the number of products, so bisect.
    holds, fails = 0, len(order)
    while fails - holds > 1:
        middle = (holds + fails) // 2
        if difference(order[:middle]) <= _MARGIN * tolerance:
            holds = middle
        else:
            fails = middle
    return lower(model, frozenset(order[:holds]))


def _read(
    model: onnx.ModelProto, tokens: npt.NDArray[np.int64], state: Sequence[StateTensor]
) -> list[npt.NDArray[Any]]:
    """All logits of a stream, and the state after each chunk."""
    values: list[npt.NDArray[Any]] = []
    for start, outputs in stream_graph(model, tokens, state, _CHUNK, ["logits"]):
        values.append(outputs["logits"])
        if start % _CHUNK == 0:
            values += [outputs[row.present] for row in state]
    return values


def _largest_difference(first: list[npt.NDArray[Any]], second: list[npt.NDArray[Any]]) -> float:
    return max(
        float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max())
        for a, b in zip(first, second, strict=True)
    )

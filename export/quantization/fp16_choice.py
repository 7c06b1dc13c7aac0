"""Which products can be lowered to float16 without leaving the gate's tolerance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from ...runtime.state_table import StateTensor
from ..parity.stream_graph import stream_graph
from .matmuls import find_products

__all__ = ["Lower", "as_many_as_hold"]

Lower = Callable[[onnx.ModelProto, frozenset[str]], onnx.ModelProto]
"""Lowers the products of these nodes and leaves the others."""

_MARGIN = 0.7
"""Share of the tolerance to use up here: a longer text meets larger differences."""

_TEXT, _CHUNK = 1_024, 256
_NOISE = (3, 100)


def as_many_as_hold(
    model: onnx.ModelProto,
    lower: Lower,
    tolerance: float,
    recurrence: bool,
    text: npt.NDArray[np.int64],
    state: Sequence[StateTensor],
) -> onnx.ModelProto:
    """Lower the products that cost least for their size, as many as the tolerance holds.

    Each product is lowered alone and measured; then, in that order, as many together as keep
    logits and state within the tolerance, on a text and on random tokens.

    Args:
        model: The graph in float32.
        lower: Makes the lowered graph.
        tolerance: Largest |difference| of a logit or a state value.
        recurrence: Whether the recurrence may be lowered.
        text: Tokens ``[1, T]`` to measure on.
        state: The state table.

    Returns:
        The lowered graph.
    """
    products = find_products(model, recurrence)
    vocabulary = next(e for e in model.graph.output if e.name == "logits")
    high = vocabulary.type.tensor_type.shape.dim[-1].dim_value
    noise = np.random.default_rng(1).integers(0, high, _NOISE)
    texts = [part for part in (text[:, :_TEXT], noise) if part.size]
    wanted = [_read(model, tokens, state) for tokens in texts]

    def difference(names: Sequence[str]) -> float:
        lowered = lower(model, frozenset(names))
        found = [_read(lowered, tokens, state) for tokens in texts]
        return max(_apart(a, b) for a, b in zip(wanted, found, strict=True))

    everything = [product.node.name for product in products]
    if not products or difference(everything) <= _MARGIN * tolerance:
        return lower(model, frozenset(everything))
    costs = {p.node.name: difference([p.node.name]) ** 2 / p.array.size for p in products}
    order = sorted(everything, key=lambda name: costs[name])
    # The most of them that hold; more of them are farther off, so that halving finds it.
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
    found: list[npt.NDArray[Any]] = []
    for start, seen in stream_graph(model, tokens, state, _CHUNK, ["logits"]):
        found.append(seen["logits"])
        if start % _CHUNK == 0:
            found += [seen[row.present] for row in state]
    return found


def _apart(first: list[npt.NDArray[Any]], second: list[npt.NDArray[Any]]) -> float:
    return max(
        float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max())
        for a, b in zip(first, second, strict=True)
    )

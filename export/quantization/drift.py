"""The difference between a lowered bundle and the float32 bundle it was made from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...runtime.engines.base import Engine, Values
from ...train.model.state import State
from ..parity.comparison import Comparison, compared_graphs
from ..parity.graph_parity import compare_graph

__all__ = ["EngineAsModel", "drift_work", "measure_drift"]

_STEPS = 1_500
_NOISE = (3, 150)


def measure_drift(
    reference: Engine,
    engine: Engine,
    text: npt.NDArray[np.int64],
    tolerance: float,
    progress: Callable[[int], object] | None = None,
    start: Values | None = None,
) -> list[Comparison]:
    """Compare logits and every state tensor of two engines, as the parity gate does.

    Args:
        reference: The float32 bundle's engine, in PyTorch's place.
        engine: The lowered bundle's engine.
        text: Tokens ``[1, T]``, of which the beginning is read.
        tolerance: Tokens whose logits lie closer than this are a tie.
        progress: Called with the number of tokens read.
        start: The state to begin with, for one row; zeros by default.

    Returns:
        The figures of each graph on the text and on random tokens.
    """
    model = EngineAsModel(reference)
    beside = "weights" if reference.provider == "native" else "graphs"
    noise = np.random.default_rng(1).integers(0, engine.vocab_size, _NOISE)
    return [
        compare_graph(
            model,
            engine,
            graph,
            tokens,
            f"{name}, beside float32's {beside}",
            tolerance,
            0,
            progress,
            start,
        )
        for graph in compared_graphs(engine.provider)
        for name, tokens in (("text", text[:, :_STEPS]), ("random tokens", noise))
    ]


def drift_work(provider: str, tokens: int) -> int:
    """Tokens that :func:`measure_drift` reads of a text of this length."""
    return len(compared_graphs(provider)) * (min(tokens, _STEPS) + _NOISE[0] * _NOISE[1])


class EngineAsModel:
    """A :class:`.graph_parity.ReferenceModel` computed by an engine's prefill."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def zero_state(self, batch: int) -> State:
        """The start of a stream."""
        return _tensors(self._engine.zero_state(batch).read())

    def __call__(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Read ``tokens [B, T]``; return logits ``[B, T, V]`` and the next state."""
        held = self._engine.zero_state(len(tokens))
        held.write({name: value.numpy() for name, value in state.items()})
        logits = self._engine.prefill(tokens.numpy(), held)
        return torch.from_numpy(logits), _tensors(held.read())


def _tensors(values: dict[str, npt.NDArray[Any]]) -> State:
    return {name: torch.from_numpy(value) for name, value in values.items()}

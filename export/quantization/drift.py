"""How far a bundle of lower precision is from the float32 one that it was made from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...runtime.engines.ort.host_engine import OnnxEngine
from ...train.model.dual_cnn import DualCNN
from ...train.model.state import State
from ..parity.comparison import Comparison
from ..parity.gate import compare

__all__ = ["drift", "drift_total"]

_STEPS = 1_500
_NOISE = (3, 150)
_NAMES = ("text, beside float32's graphs", "random tokens, beside float32's graphs")


def drift(
    reference: OnnxEngine,
    engine: OnnxEngine,
    text: npt.NDArray[np.int64],
    tolerance: float,
    progress: Callable[[int], object] | None = None,
) -> list[Comparison]:
    """Compare logits and every state tensor of two engines, as the parity gate does.

    Args:
        reference: The float32 bundle's engine, in PyTorch's place.
        engine: The new bundle's.
        text: Tokens ``[1, T]``; the beginning is read.
        tolerance: Likeliest tokens closer than this are a tie.
        progress: Called with the number of tokens read.

    Returns:
        The figures of each graph on the text, and on random tokens.
    """
    stand_in = cast(DualCNN, _EngineAsModel(reference))
    noise = np.random.default_rng(1).integers(0, engine.vocab_size, _NOISE)
    return [
        compare(stand_in, engine, graph, tokens, name, tolerance, progress=progress)
        for graph in ("decode", "prefill")
        for name, tokens in zip(_NAMES, (text[:, :_STEPS], noise), strict=True)
    ]


def drift_total(tokens: int) -> int:
    """Tokens that :func:`drift` reads of a text of this length, for a progress bar."""
    return 2 * (min(tokens, _STEPS) + _NOISE[0] * _NOISE[1])


class _EngineAsModel:
    """What :func:`.parity.compare` asks of a model, computed by an engine's prefill graph."""

    def __init__(self, engine: OnnxEngine) -> None:
        self.engine = engine

    def zero_state(self, batch: int) -> State:
        return _tensors(self.engine.zero_state(batch).read())

    def __call__(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        held = self.engine.zero_state(len(tokens))
        held.write({name: value.numpy() for name, value in state.items()})
        logits = self.engine.prefill(tokens.numpy(), held)
        return torch.from_numpy(logits), _tensors(held.read())


def _tensors(values: dict[str, npt.NDArray[Any]]) -> State:
    return {name: torch.from_numpy(value) for name, value in values.items()}

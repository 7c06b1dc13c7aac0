"""Where a comparison or a measurement begins: at zeros, or with what a bundle taught."""

from __future__ import annotations

import numpy as np
import torch

from ...runtime.engines.base import Engine, EngineState, Values
from ...train.model.state import State

__all__ = ["engine_state", "torch_state"]


def engine_state(engine: Engine, start: Values | None, batch: int = 1) -> EngineState:
    """A state of an engine.

    Args:
        engine: The engine.
        start: Every state tensor, for one row; ``None`` for zeros.
        batch: Number of rows, all the same.
    """
    state = engine.zero_state(batch)
    if start is not None:
        state.write({name: np.repeat(value, batch, axis=0) for name, value in start.items()})
    return state


def torch_state(zeros: State, start: Values | None) -> State:
    """The same for the PyTorch model.

    Args:
        zeros: The model's state at zeros, ``[B, ...]`` each.
        start: Every state tensor, for one row; ``None`` for zeros.
    """
    if start is None:
        return zeros
    return {
        name: torch.from_numpy(start[name]).to(value).expand_as(value).clone()
        for name, value in zeros.items()
    }

"""Comparing a graph with PyTorch: the time of a graph that computes something else says nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rillet.train import DualCNN

from .arrays import TokenArray
from .stepping import Steps

__all__ = ["Forward", "check_against_torch", "torch_difference"]

_TOLERANCE = 1e-3

Forward = Callable[[Tensor, Any], tuple[Tensor, Any]]
"""A token ``[1, 1]`` and the state, to logits ``[1, 1, V]`` and the next state."""


@torch.no_grad()
def torch_difference(steps: Steps, forward: Forward, tokens: TokenArray) -> float:
    """The largest difference of a logit between a graph and PyTorch, both from a zero state."""
    state = forward.zero_state() if isinstance(forward, DualCNN) else None
    expected = []
    for token in torch.from_numpy(tokens):
        logits, state = forward(token.view(1, 1), state)
        expected.append(logits[0, 0].numpy())
    return float(np.abs(steps.run_all(tokens) - np.stack(expected)).max())


def check_against_torch(name: str, steps: Steps, forward: Forward, tokens: TokenArray) -> None:
    """Stop unless a graph computes what PyTorch computes.

    Raises:
        SystemExit: A logit differs by more than 1e-3 within 64 steps.
    """
    difference = torch_difference(steps, forward, tokens[:64])
    if not difference <= _TOLERANCE:
        raise SystemExit(f"{name} differs from PyTorch by {difference:.1e}")

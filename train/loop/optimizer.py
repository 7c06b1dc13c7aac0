"""The optimiser, its learning rate, and the average of the weights."""

from __future__ import annotations

import copy
import math
from typing import Generic, TypeVar

import torch
from torch import nn

from ..config.training_config import TrainingConfig
from ..model.dual_cnn import DualCNN

__all__ = ["WeightAverage", "learning_rate", "make_optimizer"]


M = TypeVar("M", bound=nn.Module)


def make_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW with decay for matrices and filters, and none for biases and norms."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for _, p in named if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for _, p in named if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.99), fused=True)


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Learning rate of a step: linear warm-up, then a cosine to the final rate."""
    cosine = 0.5 + 0.5 * math.cos(math.pi * step / config.steps)
    decay = config.final_rate + (1 - config.final_rate) * cosine
    return config.learning_rate * decay * min(1.0, (step + 1) / max(1, config.warmup))


class WeightAverage(Generic[M]):
    """An exponential moving average of a model's trained weights.

    The average of the last steps of stochastic optimisation lies nearer the middle of the
    valley than any of them (Polyak and Juditsky, 1992). The first steps count less, so
    that a short run does not keep its first values.

    Args:
        model: The model that is trained.
        decay: Share of the old average that a step keeps; 0 follows the weights.

    Attributes:
        model: A model with the averaged weights, in evaluation mode; its fixed parts are those
            of the one that is trained.
    """

    def __init__(self, model: M, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).eval()
        self.model.requires_grad_(False)
        if isinstance(self.model, DualCNN):
            self.model.autocast = None
        self._pairs = [
            (own.data, other)
            for own, other in zip(self.model.parameters(), model.parameters(), strict=True)
        ]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after a step, counted from 0."""
        decay = min(self.decay, (step + 1) / (step + 10)) if self.decay else 0.0
        torch._foreach_lerp_(
            [own for own, _ in self._pairs],
            [other.detach() for _, other in self._pairs],
            1 - decay,
        )

"""The optimizer, its learning rate, and the moving average of the weights."""

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
    """Build AdamW, with weight decay for matrices and filters but not for biases and norms."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for _, p in named if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for _, p in named if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.99), fused=True)


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Learning rate at a step: linear warm-up, then a cosine to the final rate."""
    cosine = 0.5 + 0.5 * math.cos(math.pi * step / config.steps)
    decay = config.final_rate + (1 - config.final_rate) * cosine
    return config.learning_rate * decay * min(1.0, (step + 1) / max(1, config.warmup))


class WeightAverage(Generic[M]):
    """An exponential moving average of a model's trained weights.

    The average over the last steps of stochastic optimization is closer to the minimum than
    any single step (Polyak and Juditsky, 1992). The decay is lower in the first steps, so
    that a short run does not retain its initial weights.

    Args:
        model: The model in training.
        decay: Share of the old average that a step keeps; 0 follows the weights.

    Attributes:
        model: A copy of the model with the averaged weights, in evaluation mode.
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
        """Average in the weights after a step, counted from 0."""
        decay = min(self.decay, (step + 1) / (step + 10)) if self.decay else 0.0
        for own, other in self._pairs:
            own.lerp_(other.detach(), 1 - decay)

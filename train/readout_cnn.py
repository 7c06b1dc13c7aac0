"""The second CNN: reads the waves and the memory, and makes the final prediction."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import DualCNNConfig
from .wave_cnn import GatedBlock
from .windows import causal_filters

__all__ = ["MemoryGate", "ReadoutCNN", "combine"]

FLOOR = 1e-20
"""Least probability under the logarithm, so that no logit is ever infinite. A maximum and
not a sum: the exporter's optimiser takes such a small summand for zero and drops it."""

_SUREST = 30.0
"""Largest size of the gate's logit: its exponential stays a number."""


class MemoryGate(nn.Module):
    """How far to trust the memory at a step.

    With ``q = m / (z + c)``, the memory's share is ``lambda q`` and the network's
    ``1 - lambda sum(q)``: with nothing found, the memory has no say whatever the
    gate. ``lambda`` is a sigmoid of a small network that sees the second CNN's
    features, how much was found, and how sure what was found is.

    Args:
        config: The model's configuration.
    """

    def __init__(self, config: DualCNNConfig) -> None:
        super().__init__()
        # Of one element, not scalars: the exporter's optimiser drops a scalar summand
        # below 1e-8 and a scalar factor within 1e-5 of 1.
        self.log_beta = nn.Parameter(torch.tensor([math.log(config.memory_sharpness)]))
        self.log_c = nn.Parameter(torch.tensor([0.0]))
        self.hidden = nn.Linear(config.wave_features + 2, config.gate_hidden)
        self.output = nn.Linear(config.gate_hidden, 1)

    def forward(self, features: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
        """Weigh the memory.

        Args:
            features: Normed features of the second CNN, ``[B, T, F]``.
            found: What :func:`recall` returned, ``[B, T, V]``.

        Returns:
            The memory's share ``lambda q [B, T, V]``, and the network's
            ``1 - lambda sum(q) [B, T, 1]``.
        """
        c = self.log_c.exp()
        scale = 1 / (found.sum(-1, keepdim=True) + c)
        q = found * scale
        seen = torch.cat([features, q.sum(-1, keepdim=True), q.amax(-1, keepdim=True)], dim=-1)
        doubt = torch.exp(-self.output(F.silu(self.hidden(seen))).clamp(-_SUREST, _SUREST))
        trust = 1 / (1 + doubt)  # the sigmoid
        # 1 - lambda sum(q), as a sum of what is positive: where the memory is trusted almost
        # wholly, a difference from 1 would leave the other tokens three digits.
        return trust * q, trust * (doubt + c * scale)


def combine(logits: Tensor, share: Tensor, kept: Tensor) -> Tensor:
    """The final prediction, ``log((1 - lambda sum(q)) softmax(logits) + lambda q)``.

    Args:
        logits: Logits without the memory, ``[..., V]``.
        share: The memory's share, ``[..., V]``.
        kept: The network's share, ``[..., 1]``.

    Returns:
        Log-probabilities, ``[..., V]``.
    """
    network = kept * torch.softmax(logits, dim=-1)
    return torch.log((network + share).clamp_min(FLOOR))


class ReadoutCNN(nn.Module):
    """Causal convolutions over the newest W waves to logits (the second CNN).

    Args:
        config: The model's configuration.
    """

    def __init__(self, config: DualCNNConfig) -> None:
        super().__init__()
        features, window = config.wave_features, config.wave_window
        taps = torch.randn(features, config.readout_filters, window) * window**-0.5
        taps[:, 0] *= 0.5
        taps[:, 0, -1] += 1.0
        self.filters = nn.Parameter(taps)
        width = features * config.readout_filters
        self.mix = GatedBlock(width, config.hidden, features, config.dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(features) for _ in range(config.readout_blocks))
        self.blocks = nn.ModuleList(
            GatedBlock(features, config.hidden, features, config.dropout)
            for _ in range(config.readout_blocks - 1)
        )
        self.head = nn.Linear(features, config.vocab_size)
        self.gate = MemoryGate(config) if config.memory else None

    def forward(self, waves: Tensor, windows: Tensor) -> tuple[Tensor, Tensor]:
        """Predict from the waves alone.

        Args:
            waves: The current waves, ``[B, T, F]``.
            windows: The same, preceded by the W - 1 waves before, ``[B, W - 1 + T, F]``.

        Returns:
            Logits without the memory ``[B, T, V]`` and the features ``[B, T, F]``
            that the gate sees.
        """
        x = waves + self.mix(causal_filters(windows, self.filters))
        for norm, block in zip(self.norms, self.blocks, strict=False):
            x = x + block(norm(x))
        features = self.norms[-1](x)
        return self.head(features), features

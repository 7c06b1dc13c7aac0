"""The second CNN: read the waves and make the final prediction."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..config.model_config import DualCNNConfig
from .causal import causal_filters
from .dropout_noise import Noise
from .wave_cnn import GatedBlock

__all__ = ["ReadoutCNN"]


class ReadoutCNN(nn.Module):
    """Causal convolutions from the newest W waves to logits (the second CNN).

    Args:
        config: The model's configuration.
        noise: Source of dropout masks.
    """

    def __init__(self, config: DualCNNConfig, noise: Noise | None = None) -> None:
        super().__init__()
        noise = noise or Noise()
        features, window, hidden = config.wave_features, config.wave_window, config.hidden
        taps = torch.randn(features, config.readout_filters, window) * window**-0.5
        taps[:, 0] *= 0.5
        taps[:, 0, -1] += 1.0
        self.filters = nn.Parameter(taps)
        width = features * config.readout_filters
        self.mix = GatedBlock(width, hidden, features, config.dropout, noise)
        self.norms = nn.ModuleList(nn.LayerNorm(features) for _ in range(config.readout_blocks))
        self.blocks = nn.ModuleList(
            GatedBlock(features, hidden, features, config.dropout, noise)
            for _ in range(config.readout_blocks - 1)
        )
        self.head = nn.Linear(features, config.vocab_size)

    def forward(self, waves: Tensor, windows: Tensor) -> tuple[Tensor, Tensor]:
        """Predict from the waves alone.

        Args:
            waves: The current waves, ``[B, T, F]``.
            windows: The same waves, preceded by the last W - 1 before them,
                ``[B, W - 1 + T, F]``.

        Returns:
            Logits without the memory, ``[B, T, V]``, and the features that the memory's gate
            reads, ``[B, T, F]``.
        """
        x = waves + self.mix(causal_filters(windows, self.filters))
        for norm, block in zip(self.norms, self.blocks, strict=False):
            x = x + block(norm(x))
        features = self.norms[-1](x)
        return self.head(features), features

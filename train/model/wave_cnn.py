"""The first CNN: emit waves, and predict the next token from them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config.model_config import DualCNNConfig
from .causal import newest, shifted_sum
from .dropout_noise import Noise

__all__ = ["Dropout", "GatedBlock", "WaveBlock", "WaveCNN"]


class Dropout(nn.Module):
    """Dropout (Srivastava et al., 2014) of values ``[B, T, H]`` during training.

    Args:
        share: Share of values to drop.
        noise: Source of the masks.
    """

    def __init__(self, share: float, noise: Noise) -> None:
        super().__init__()
        self.share, self.noise = share, noise

    def forward(self, x: Tensor) -> Tensor:
        """Drop a share of the values and scale up the rest."""
        if not self.training or not self.share:
            return x
        return x * self.noise.keep(x, self.share)


class GatedBlock(nn.Module):
    """A gated layer: ``down(dropout(silu(g) * v))`` with ``g, v = up(x)``.

    SwiGLU (Shazeer, 2020).

    Args:
        inputs: Width of the input.
        hidden: Inner width.
        outputs: Width of the output.
        dropout: Dropout of the inner values during training.
        noise: Source of dropout masks.
    """

    def __init__(
        self, inputs: int, hidden: int, outputs: int, dropout: float, noise: Noise
    ) -> None:
        super().__init__()
        self.up = nn.Linear(inputs, 2 * hidden)
        self.down = nn.Linear(hidden, outputs)
        self.dropout = Dropout(dropout, noise)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[..., inputs]`` to ``[..., outputs]``; training needs ``[B, T, inputs]``."""
        gate, value = self.up(x).chunk(2, dim=-1)
        y: Tensor = self.down(self.dropout(F.silu(gate) * value))
        return y


class WaveBlock(nn.Module):
    """A residual block: norm, short causal depthwise convolution, gated layer.

    Args:
        config: The model's configuration.
        noise: Source of dropout masks.
    """

    def __init__(self, config: DualCNNConfig, noise: Noise) -> None:
        super().__init__()
        width, kernel = config.width, config.wave_kernel
        self.norm = nn.LayerNorm(width)
        taps = torch.zeros(kernel, width)
        taps[-1] = 1.0
        self.taps = nn.Parameter(taps + torch.randn(kernel, width) * kernel**-0.5 * 0.5)
        self.gated = GatedBlock(width, config.hidden, width, config.dropout, noise)

    def forward(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Compute a chunk.

        Args:
            x: ``[B, T, d]``.
            context: The last k - 1 normed inputs, ``[B, k - 1, d]``.

        Returns:
            The output, ``[B, T, d]``, and the next context.
        """
        # The context is joined after the norm, so its initial zeros stay zeros.
        seen = torch.cat([context, self.norm(x)], dim=1)
        return x + self.gated(shifted_sum(seen, self.taps)), newest(seen, context.shape[1])


class WaveCNN(nn.Module):
    """Gated causal convolutions from attended states to waves (the first CNN).

    Args:
        config: The model's configuration.
        noise: Source of dropout masks.
    """

    def __init__(self, config: DualCNNConfig, noise: Noise | None = None) -> None:
        super().__init__()
        noise = noise or Noise()
        self.blocks = nn.ModuleList(WaveBlock(config, noise) for _ in range(config.wave_blocks))
        self.emit = nn.Linear(config.width, config.wave_features)
        self.norm = nn.LayerNorm(config.wave_features)
        self.head = nn.Linear(config.wave_features, config.vocab_size)

    def forward(self, attended: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Emit a wave for each step.

        Args:
            attended: Attended states, ``[B, T, d]``.
            context: The last k - 1 normed inputs of each block, concatenated,
                ``[B, k - 1, blocks x d]``.

        Returns:
            The waves, ``[B, T, F]``, and the next context.
        """
        x, contexts = attended, []
        for block, past in zip(self.blocks, context.chunk(len(self.blocks), dim=2), strict=True):
            x, present = block(x, past)
            contexts.append(present)
        return self.norm(self.emit(x)), torch.cat(contexts, dim=2)

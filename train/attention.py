"""Windowed attention over the reservoir's states."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .config import DualCNNConfig
from .reservoir import SparseReservoir
from .windows import causal_attention, newest

__all__ = ["AttentiveReservoir"]


class AttentiveReservoir(SparseReservoir):
    """A sparse reservoir whose current state attends over its last A states.

    The state is read into the model width and joined by the token's embedding;
    multi-head causal attention with a learned distance bias, a residual and a
    norm follow. Keys and values of the last A - 1 steps are the state that the
    next step needs; before the start of a stream they are zeros.

    Args:
        config: The model's configuration.
    """

    def __init__(self, config: DualCNNConfig) -> None:
        super().__init__(config)
        width = config.width
        self.heads = config.attention_heads
        self.window = config.attention_window
        self.read = nn.Linear(config.reservoir_size, width)
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.output = nn.Linear(width, width, bias=False)
        # Start with nearby states heard best, at a different range for each head.
        slopes = 2.0 ** -torch.arange(1, self.heads + 1)
        self.distance_bias = nn.Parameter(-slopes.unsqueeze(1) * torch.arange(self.window))

    def attend(
        self, states: Tensor, embedded: Tensor, past_window: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Attend over the window.

        Args:
            states: Reservoir states, ``[B, T, N]``.
            embedded: Trained token embeddings, ``[B, T, d]``.
            past_window: Keys and values of the last A - 1 steps, ``[B, A - 1, 2 d]``.

        Returns:
            The attended states ``[B, T, d]`` and the next window ``[B, A - 1, 2 d]``.
        """
        batch, length, width = embedded.shape
        x = embedded + self.read(states)
        normed = self.norm(x)
        window = torch.cat([past_window, self.key_value(normed)], dim=1)
        k, v = self._split_heads(window).chunk(2, dim=1)  # each [B, H, A - 1 + T, e]
        q = self._split_heads(self.query(normed)) * (width // self.heads) ** -0.5
        mixed = causal_attention(q, k, v, self.distance_bias)
        mixed = mixed.transpose(1, 2).reshape(batch, length, width)
        return x + self.output(mixed), newest(window, self.window - 1)

    def _split_heads(self, x: Tensor) -> Tensor:
        """``[B, S, heads x e]`` to ``[B, heads, S, e]``."""
        batch, length, width = x.shape
        size = self.query.out_features // self.heads
        return x.view(batch, length, width // size, size).transpose(1, 2)

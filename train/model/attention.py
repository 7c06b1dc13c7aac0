"""Windowed attention over the reservoir's states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..config.model_config import DualCNNConfig
from .causal import attention_weights, causal_attention, newest
from .precision import full_precision
from .reservoir import SparseReservoir

__all__ = ["Attended", "AttentiveReservoir"]


@dataclass(frozen=True)
class Attended:
    """Result of attention over a chunk.

    Attributes:
        states: Attended states, ``[B, T, d]``.
        window: Keys and values of the last A - 1 steps, ``[B, A - 1, 2 d]``.
        weights: Attention weights, oldest step first, ``[B, H, T, A]``; ``None`` unless
            requested.
    """

    states: Tensor
    window: Tensor
    weights: Tensor | None = None

    def entropy(self) -> Tensor:
        """Entropy of the attention weights in nats, averaged over the heads, ``[B, T]``.

        It is 0 if every head attends to a single step, and ``log A`` if every head attends
        to all steps equally.

        Raises:
            ValueError: The weights were not requested.
        """
        if self.weights is None:
            raise ValueError("the attention weights were not kept; pass need_weights=True")
        return -torch.xlogy(self.weights, self.weights).sum(-1).mean(1)


class AttentiveReservoir(SparseReservoir):
    """A sparse reservoir whose current state attends over its last A states.

    A linear layer projects the state to the model width, and the token's embedding is added.
    Multi-head causal attention with a learned distance bias follows, with pre-norm and a
    residual connection. The next step needs the keys and values of the last A - 1 steps;
    before the start of a stream they are zeros.

    Args:
        size: Units N.
        inputs: Width of the token codes.
        width: Model width d.
        heads: Attention heads H; divides the width.
        window: States that attention sees, the current one included [A].
        **reservoir: Options of :class:`SparseReservoir`.
    """

    def __init__(
        self,
        size: int,
        inputs: int,
        *,
        width: int = 64,
        heads: int = 4,
        window: int = 32,
        **reservoir: Any,
    ) -> None:
        super().__init__(size, inputs, **reservoir)
        self.heads, self.window = heads, window
        self.read = nn.Linear(size, width)
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.output = nn.Linear(width, width, bias=False)
        # Each head starts out favouring nearby states, at a range of its own (as in ALiBi).
        slopes = 2.0 ** -torch.arange(1, heads + 1)
        self.distance_bias = nn.Parameter(-slopes.unsqueeze(1) * torch.arange(window))

    @classmethod
    def from_config(cls, config: DualCNNConfig, **parts: Any) -> AttentiveReservoir:
        """Build the reservoir that a configuration describes."""
        shape = {
            "width": config.width,
            "heads": config.attention_heads,
            "window": config.attention_window,
        }
        return super().from_config(config, **{**shape, **parts})

    def attend(
        self, states: Tensor, embedded: Tensor, past_window: Tensor, need_weights: bool = False
    ) -> Attended:
        """Attend over the window.

        Args:
            states: Reservoir states, ``[B, T, N]``.
            embedded: Trained token embeddings, ``[B, T, d]``.
            past_window: Keys and values of the last A - 1 steps, ``[B, A - 1, 2 d]``.
            need_weights: Return the attention weights as well.

        Returns:
            The attended states, the next window and, if requested, the weights.
        """
        batch, length, width = embedded.shape
        x = embedded + self.read(states)
        normed = self.norm(x)
        window = torch.cat([past_window, self.key_value(normed)], dim=1)
        k, v = self._split_heads(window).chunk(2, dim=1)  # each [B, H, A - 1 + T, e]
        q = self._split_heads(self.query(normed)) * (width // self.heads) ** -0.5
        # Stay in float32 under autocast: converting the scores back and forth takes longer
        # than the shorter product saves.
        with full_precision(q.device):
            q, k, v = _at_least_float(q), _at_least_float(k), _at_least_float(v)
            mixed = causal_attention(q, k, v, self.distance_bias)
        mixed = mixed.transpose(1, 2).reshape(batch, length, width)
        weights = attention_weights(q, k, self.distance_bias) if need_weights else None
        return Attended(x + self.output(mixed), newest(window, self.window - 1), weights)

    def _split_heads(self, x: Tensor) -> Tensor:
        """Reshape ``[B, S, heads x e]`` to ``[B, heads, S, e]``."""
        batch, length, width = x.shape
        size = self.query.out_features // self.heads
        return x.view(batch, length, width // size, size).transpose(1, 2)


def _at_least_float(x: Tensor) -> Tensor:
    """Widen a 16-bit type to float32; leave float64 alone."""
    return x.float() if x.element_size() < 4 else x

"""A transformer that reads a stream: a cache of the last keys and values slides along.

It is nanoGPT's block (pre-norm, GELU, no biases, tied head) with rotary positions (Su et al., 2021)
in place of learned ones, which end with their table. Training carries the cache from chunk to
chunk, as Transformer-XL does (Dai et al., 2019), so that a stream is read as it was trained.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rillet.train.model.causal import band

from .baselines import Baseline, TransformerBlock, initialise, match_width

__all__ = ["PERIOD", "SlidingTransformer", "matched_sliding", "rotate"]

PERIOD = 4096
"""Positions after which all angles repeat: a stream may count them modulo this."""

Turns = tuple[Tensor, Tensor]
"""Cosine and sine of each angle."""


class _Block(TransformerBlock):
    """A block whose attention slides along a stream."""

    def __init__(self, width: int, heads: int, window: int, dropout: float, size: int) -> None:
        super().__init__(width, heads, dropout, size)
        self.window = window

    def read(self, x: Tensor, cached: Tensor, turns: Turns) -> tuple[Tensor, Tensor]:
        """Read a chunk.

        Args:
            x: ``[B, T, d]``, T at most the window.
            cached: Keys and values of the window - 1 steps before, ``[2, B, window - 1, H e]``.
            turns: Of all these steps in order, ``[window - 1 + T, e / 2]`` each.

        Returns:
            ``[B, T, d]``, and the keys and values of the last window - 1 steps.
        """
        length = x.shape[1]
        q, k, v = self.query_key_value(self.attention_norm(x)).chunk(3, dim=-1)
        both = torch.cat([cached.to(k.dtype), torch.stack([k, v])], dim=2)
        keys, values = (self._heads(part) for part in both)
        last = turns[0][-length:], turns[1][-length:]
        seen, _ = band(length, self.window, x.device)
        # No dropout of attention weights, as in :class:`.baselines.GPT`.
        mixed = F.scaled_dot_product_attention(
            rotate(self._heads(q), last), rotate(keys, turns), values, seen
        )
        mixed = self.attention_output(mixed.transpose(1, 2).flatten(2))
        x = self.feed_forward(x + F.dropout(mixed, self.dropout, self.training))
        return x, both[:, :, length:]

    def step(
        self, x: Tensor, cached: tuple[Tensor, Tensor], slot: Tensor, turns: Turns
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Read one token, whose key and value take the oldest slot of a cache.

        Args:
            x: ``[B, d]``.
            cached: Rotated keys, and values, of the window, ``[B, H, window, e]`` each.
            slot: The oldest slot, ``[B, 1, 1, 1]``.
            turns: Of the token's position, ``[B, 1, 1, e / 2]`` each.

        Returns:
            ``[B, d]`` and the cache.
        """
        joint = self.query_key_value(self.attention_norm(x))
        q, k, v = joint.view(-1, 3, self.heads, self.size).unsqueeze(3).unbind(1)
        slot = slot.expand(-1, self.heads, 1, self.size)
        keys = cached[0].scatter(2, slot, rotate(k, turns))
        values = cached[1].scatter(2, slot, v)
        scores = (rotate(q, turns) * self.size**-0.5) @ keys.transpose(2, 3)  # [B, H, 1, window]
        mixed = (torch.softmax(scores, dim=-1) @ values).flatten(1)
        return self.feed_forward(x + self.attention_output(mixed)), (keys, values)

    def _heads(self, x: Tensor) -> Tensor:
        heads: Tensor = x.unflatten(2, (self.heads, -1)).transpose(1, 2)
        return heads


class SlidingTransformer(Baseline):
    """A transformer whose queries see the last ``window`` tokens of a stream.

    Slots before the start of the stream hold zeros and are attended to, as in our own attention.

    Args:
        vocab: Number of tokens V.
        width: Width d.
        layers: Number of blocks.
        heads: Attention heads H, each as wide as its share of the width, rounded to an even e.
        window: Tokens that a query sees, its own included.
        dropout: Dropout of the embeddings and of each residual branch.
    """

    blocks: nn.ModuleList
    frequencies: Tensor

    def __init__(
        self,
        vocab: int,
        width: int,
        layers: int,
        heads: int,
        window: int = 256,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.window, self.width, self.heads, self.dropout = window, width, heads, dropout
        self.size = 2 * round(width / heads / 2)  # even, for the rotation
        self.tokens = nn.Embedding(vocab, width)
        self.blocks = nn.ModuleList(
            _Block(width, heads, window, dropout, self.size) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width, bias=False)
        self.register_buffer("frequencies", _frequencies(self.size), persistent=False)
        initialise(self, layers)

    def turns(self, positions: Tensor) -> Turns:
        """Cosine and sine of positions ``[..., 1]``, ``[..., e / 2]`` each."""
        angles = positions * self.frequencies
        return angles.cos(), angles.sin()

    def steps(self) -> list[_Block]:
        """The blocks, to be stepped one by one."""
        return cast(list[_Block], list(self.blocks))

    def zero_state(self, batch: int = 1) -> Tensor:
        """The initial state, keys and values of each block, ``[2 layers, B, window - 1, H e]``."""
        return torch.zeros(2 * len(self.blocks), batch, self.window - 1, self.heads * self.size)

    def features(self, tokens: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What the head reads, ``[B, T, d]``, and the next state."""
        if state is None:
            state = self.zero_state(len(tokens)).to(self.tokens.weight.device)
        parts = []
        for part in tokens.split(self.window, dim=1):
            x, state = self._read(part, state)
            parts.append(x)
        return torch.cat(parts, dim=1), state

    def _read(self, tokens: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        x = F.dropout(self.tokens(tokens), self.dropout, self.training)
        steps = torch.arange(self.window - 1 + tokens.shape[1], device=x.device)
        turns = self.turns(steps.unsqueeze(1))
        after = []
        for block, cached in zip(self.steps(), state.unflatten(0, (-1, 2)), strict=True):
            x, kept = block.read(x, cached, turns)
            after.append(kept)
        return self.norm(x), torch.cat(after)


def rotate(x: Tensor, turns: Turns) -> Tensor:
    """Rotate the halves of each head, ``[..., e]``, by cosine and sine, ``[..., e / 2]`` each."""
    first, second = x.chunk(2, dim=-1)
    cosine, sine = (part.to(x.dtype) for part in turns)
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], dim=-1)


def _frequencies(size: int) -> Tensor:
    """Angles per step, from 1 down to one turn in :data:`PERIOD`, each a whole number of turns."""
    slowest = 2 * math.pi / PERIOD
    turns = torch.logspace(math.log10(1 / slowest), 0, size // 2, dtype=torch.float64).round()
    return (turns * slowest).float()


def matched_sliding(
    parameters: int, vocab: int, window: int = 256, dropout: float = 0.1
) -> SlidingTransformer:
    """Build a transformer of four blocks with a given number of parameters, within 3 %.

    nanoGPT's recipe for a CPU has four blocks, and heads of 32: these are nearly as wide.

    Raises:
        ValueError: No width comes that close.
    """

    def build(half: int) -> SlidingTransformer:
        width = 2 * half
        return SlidingTransformer(vocab, width, 4, max(1, round(width / 32)), window, dropout)

    return match_width("transformer", parameters, vocab, build)

"""A minGRU language model (Feng et al., 2024, "Were RNNs All We Needed?"), to compare with."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .baselines import Baseline, match_width

__all__ = ["MinGRU", "matched_min_gru"]


class _Block(nn.Module):
    """A pre-norm minGRU and a GELU MLP of four times the width, each with a residual."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.recurrent_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.gate_and_candidate = nn.Linear(width, 2 * width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """Features ``[B, T, d]`` and state ``[B, d]`` to the same, T steps later."""
        gate, candidate = self.gate_and_candidate(self.recurrent_norm(x)).chunk(2, dim=-1)
        gate = torch.sigmoid(gate)
        # In float32: the scan multiplies many factors below one.
        states = scan((1 - gate).float(), (gate * candidate).float(), before)
        x = x + F.dropout(states.to(x.dtype), self.dropout, self.training)
        y = self.down(F.gelu(self.up(self.mlp_norm(x))))
        return x + F.dropout(y, self.dropout, self.training), states[:, -1]


def scan(kept: Tensor, added: Tensor, before: Tensor) -> Tensor:
    """Compute ``h_t = kept_t h_{t-1} + added_t`` for all T by doubling, ``[B, T, d]``.

    Args:
        kept: Factors between 0 and 1, ``[B, T, d]``.
        added: What each step adds, ``[B, T, d]``.
        before: The state before the first step, ``[B, d]``.
    """
    added = torch.cat([added[:, :1] + kept[:, :1] * before.unsqueeze(1), added[:, 1:]], dim=1)
    length, reach = kept.shape[1], 1
    while reach < length:
        # Each entry covers `reach` steps; combine it with the entry just before those.
        more = kept[:, reach:] * added[:, :-reach]
        added = torch.cat([added[:, :reach], added[:, reach:] + more], dim=1)
        kept = torch.cat([kept[:, :reach], kept[:, reach:] * kept[:, :-reach]], dim=1)
        reach *= 2
    return added


class MinGRU(Baseline):
    """An embedding, blocks of a minGRU and an MLP, and a head tied to the embedding.

    Args:
        vocab: Number of tokens V.
        width: Width d.
        layers: Number of blocks.
        dropout: Dropout of the embedding and of each residual branch.
    """

    def __init__(self, vocab: int, width: int, layers: int = 3, dropout: float = 0.1) -> None:
        super().__init__()
        self.dropout, self.width = dropout, width
        self.tokens = nn.Embedding(vocab, width)
        nn.init.normal_(self.tokens.weight, std=0.1)
        self.blocks = nn.ModuleList(_Block(width, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def zero_state(self, batch: int = 1) -> Tensor:
        """The initial state, ``[layers, B, d]``."""
        return torch.zeros(len(self.blocks), batch, self.width)

    def features(self, tokens: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What the head reads, ``[B, T, d]``, and the next state ``[layers, B, d]``."""
        x = F.dropout(self.tokens(tokens), self.dropout, self.training)
        if state is None:
            state = self.zero_state(tokens.shape[0]).to(x.device)
        after = []
        for block, before in zip(self.blocks, state.unbind(), strict=True):
            x, last = block(x, before)
            after.append(last)
        return self.norm(x), torch.stack(after)


def matched_min_gru(parameters: int, vocab: int, dropout: float = 0.1) -> MinGRU:
    """Build a :class:`MinGRU` of three layers with a given number of parameters, within 3 %.

    Raises:
        ValueError: No width comes that close.
    """
    return match_width("minGRU", parameters, vocab, lambda width: MinGRU(vocab, width, 3, dropout))

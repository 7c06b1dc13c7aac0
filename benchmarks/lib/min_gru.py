"""A minGRU language model (Feng et al., 2024, "Were RNNs All We Needed?"), to compare with."""

from __future__ import annotations

from typing import Any

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
        # In float32: the scan multiplies many factors just below one.
        gate = torch.sigmoid(gate.float())
        states = scan(1 - gate, gate * candidate.float(), before)
        x = x + F.dropout(states.to(x.dtype), self.dropout, self.training)
        y = self.down(F.gelu(self.up(self.mlp_norm(x))))
        return x + F.dropout(y, self.dropout, self.training), states[:, -1]


def scan(kept: Tensor, added: Tensor, before: Tensor) -> Tensor:
    """Compute ``h_t = kept_t h_{t-1} + added_t`` for all T, ``[B, T, d]``.

    Args:
        kept: Factors between 0 and 1, ``[B, T, d]``.
        added: What each step adds, ``[B, T, d]``.
        before: The state before the first step, ``[B, d]``.
    """
    if kept.shape[1] == 1:  # can be exported
        return added + kept * before.unsqueeze(1)
    states: Tensor = _Scan.apply(kept, added, before)  # type: ignore[no-untyped-call]
    return states


class _Scan(torch.autograd.Function):
    """The recurrence step by step.

    On a processor core, a parallel scan by doubling takes 17 times as long, forward and backward.
    """

    @staticmethod
    def forward(ctx: Any, kept: Tensor, added: Tensor, before: Tensor) -> Tensor:
        states = torch.empty_like(added)
        last = before
        for factor, addend, state in zip(
            kept.unbind(1), added.unbind(1), states.unbind(1), strict=True
        ):
            last = torch.addcmul(addend, factor, last, out=state)
        ctx.save_for_backward(kept, before, states)
        return states

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        kept, before, states = ctx.saved_tensors
        total = gradients[0].clone()
        steps, factors = total.unbind(1), kept.unbind(1)
        for at in reversed(range(len(steps) - 1)):
            steps[at].addcmul_(factors[at + 1], steps[at + 1])
        earlier = torch.cat([before.unsqueeze(1), states[:, :-1]], dim=1)
        return total * earlier, total, factors[0] * steps[0]


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

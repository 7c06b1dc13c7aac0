"""The memory of contexts over a chunk, with little inside the loops over time.

A turn of a loop costs its nodes, so the bodies hold only what a turn needs from the turn before;
the rest is computed for the whole chunk at once. One loop follows what the slots hold, one the
biases of the online weights, and one their temperature, which nothing else depends on.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch._higher_order_ops import scan

from ...runtime.context_slots import PATTERNS
from ...train.model.adaptation import BOUNDS, ONLINE, RATES, adapt
from ...train.model.context_memory import ContextMemory
from ...train.model.limits import FLOOR, SUREST
from ...train.model.state import State
from .decode_memory import WeightsByToken
from .prefill_slots import PrefillSlots

__all__ = ["PrefillContexts"]


class PrefillContexts(nn.Module):
    """Store what followed each context of a chunk, look the new contexts up, and mix.

    Args:
        inner: The trained memory.
    """

    patterns: Tensor
    scores: Tensor
    shares: Tensor
    one: Tensor
    ones: Tensor

    def __init__(self, inner: ContextMemory) -> None:
        super().__init__()
        self.slots = PrefillSlots(inner)
        self.gate, self.adapts = inner.gate, inner.adapts
        self.vocab_size, self.contexts = inner.vocab_size, len(inner.contexts)
        self.register_buffer("patterns", torch.arange(self.contexts) * PATTERNS)
        self.register_buffer("scores", inner.scores().detach().flatten())
        self.register_buffer("shares", inner.shares().detach().flatten())
        self.register_buffer("one", torch.ones(1))
        self.register_buffer("ones", torch.ones(self.contexts, 1))
        self.followed = WeightsByToken(self.vocab_size)

    def forward(
        self,
        tokens: Tensor,
        learn: Tensor,
        logits: Tensor,
        features: Tensor,
        past: State,
        present: State,
    ) -> Tensor:
        """Read a chunk.

        Args:
            tokens: ``[B, T]``.
            learn: ``[B]``; 0 stores nothing, and less than 1 leaves the online weights.
            logits: Logits without the memory, ``[B, T, V]``; without online weights, those of the
                last tokens are enough.
            features: Features of the last CNN for the same tokens, ``[B, T, F]``.
            past: State before the chunk.
            present: State after the chunk; receives the memory's tensors.

        Returns:
            Log-probabilities, ``[B, T, V]``.
        """
        found, pattern = self.slots(tokens, learn, past, present)
        present["position"] = past["position"] + tokens.shape[1]
        if not self.adapts:
            found, pattern = found[:, -logits.shape[1] :], pattern[:, -logits.shape[1] :]
            score, shares = self._evidence(features, pattern)
            weight = torch.exp(score.clamp_max(SUREST))
            total = 1 + weight.sum(2, keepdim=True)
            shares = shares * (weight / total).unsqueeze(3)
            return self._mix(torch.softmax(logits, dim=2), total, shares, found)
        came = (found[:, :-1] == tokens.view(*tokens.shape, 1, 1)).to(logits.dtype)
        learns = (learn.unsqueeze(1) >= 1).to(logits.dtype)  # [B, 1]
        before = (past["context_shares"], past["context_logits"])
        adapted = adapt(past["adapted"], *before, came[:, 0], tokens[:, :1], learns)
        after, network = found[:, 1:], torch.softmax(logits, dim=2)
        score, shares = self._evidence(features, pattern[:, 1:])
        # The next token moves the weights. Which follows the last one is not known yet.
        steps = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
        learns = learns * (steps < tokens.shape[1]).to(learns.dtype)
        coming = torch.cat([tokens[:, 1:], tokens[:, :1]], dim=1).unsqueeze(2)  # [B, T, 1]
        comes = (after == coming.unsqueeze(3)).to(logits.dtype)
        hits, rate = (shares * comes).sum(3), learns.unsqueeze(2) * RATES[0]
        by_turn = (score, hits, hits * rate, network.gather(2, coming), rate)
        bias, given, total = _over_time(self._follow_biases, adapted[:, :-1], by_turn)
        shares = shares * given.unsqueeze(3)
        mixed = self._mix(network, total, shares, after)
        turns = (mixed - mixed.gather(2, coming), learns.unsqueeze(2) * -RATES[1])
        last, temperature = _over_time(_follow_temperature, adapted[:, -1:], turns)
        online = (torch.cat([bias, last], dim=1), shares[:, -1], mixed[:, -1])
        present.update(zip(ONLINE, online, strict=True))
        return torch.log_softmax(mixed * temperature.exp(), dim=2)

    def _evidence(self, features: Tensor, pattern: Tensor) -> tuple[Tensor, Tensor]:
        """Scores before the biases, ``[B, T, n]``, and both tokens' shares, ``[B, T, n, 2]``."""
        at = pattern + self.patterns
        share = self.shares[at]
        return self.scores[at] + self.gate(features), torch.stack([share, 1 - share], dim=3)

    def _mix(self, network: Tensor, total: Tensor, shares: Tensor, tokens: Tensor) -> Tensor:
        """Log-probabilities before the temperature, ``[B, T, V]``."""
        pairs = 2 * self.contexts
        followed = self.followed(shares.reshape(-1, 1, pairs), tokens.reshape(-1, pairs))
        mixed = network / total + followed.view(*network.shape)
        return torch.log(mixed.clamp_min(FLOOR))

    def _follow_biases(
        self, bias: Tensor, now: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Weigh the contexts, and move their biases as the next token asks."""
        score, hits, rated_hits, network, rate = now
        weight = torch.exp((score + bias).clamp_max(SUREST))
        total = torch.addmm(self.one, weight, self.ones)  # 1 + their sum
        given = weight / total
        chance = torch.addmm(network / total, given * hits, self.ones).clamp_min(FLOOR)
        bias = bias + given * (rated_hits / chance - rate)
        return bias.clamp(-BOUNDS[0], BOUNDS[0]), (given, total)


def _follow_temperature(
    log_temperature: Tensor, now: tuple[Tensor, ...]
) -> tuple[Tensor, tuple[Tensor]]:
    """Move the temperature as the next token asks.

    The log-probabilities are relative to that token's, which leaves their softmax as it is.
    """
    relative, fall = now
    tempered = relative * log_temperature.exp()
    expected = (torch.softmax(tempered, dim=1) * tempered).sum(1, keepdim=True)
    after = (log_temperature + expected * fall).clamp(-BOUNDS[1], BOUNDS[1])
    return after, (log_temperature.clone(),)


def _over_time(
    follow: Callable[[Tensor, tuple[Tensor, ...]], tuple[Tensor, tuple[Tensor, ...]]],
    start: Tensor,
    turns: tuple[Tensor, ...],
) -> list[Tensor]:
    """Run a loop over the second axis: what it carries in the end, and what its turns return."""
    over_time = tuple(entry.transpose(0, 1) for entry in turns)
    carried, shown = scan(follow, start.contiguous(), over_time)
    return [carried, *(entry.transpose(0, 1) for entry in shown)]

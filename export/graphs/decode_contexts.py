"""The memory of contexts as a single decoding step."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...runtime.context_slots import CHECKS, PATTERNS
from ...train.config.model_config import LONGEST_CONTEXT
from ...train.model.adaptation import adapt
from ...train.model.context_memory import ContextMemory
from ...train.model.context_slots import PRIME, Slots, slot_type
from ...train.model.limits import FLOOR, SUREST
from ...train.model.state import State
from .decode_memory import WeightsByToken

__all__ = ["DecodeContexts"]


class DecodeContexts(nn.Module):
    """Store what followed the last contexts, look the new ones up, and mix.

    Args:
        inner: The trained memory.
        head: The last CNN's head. The gate reads the same features and joins its matrix product.
    """

    multipliers: Tensor
    outside: Tensor
    ends: Tensor
    own: Tensor
    patterns: Tensor
    units: Tensor
    sizes: Tensor
    blank: Tensor
    transitions: Tensor
    scores: Tensor
    shares: Tensor
    head: Tensor
    head_bias: Tensor

    def __init__(self, inner: ContextMemory, head: nn.Linear) -> None:
        super().__init__()
        self.vocab_size, self.size = inner.vocab_size, inner.size
        self.contexts, longest = len(inner.contexts), LONGEST_CONTEXT
        self.adapts = inner.adapts
        squared = self.vocab_size * self.vocab_size
        self.kind = slot_type(self.vocab_size)
        # Oldest first, as the tokens come: [n, 2 L] for the last tokens and the word's.
        both = torch.cat([inner.last.flip(1), inner.word.flip(1)], dim=1)
        self.register_buffer("multipliers", both)
        self.register_buffer("outside", inner.outside.float())  # [V + 1, 2]
        # Counts what ends the word between each token and the newest: [2 L, L].
        newer = torch.ones(longest, longest).tril(-1)  # [newer, older]
        ends = torch.stack([newer, torch.eye(longest)], dim=1).view(2 * longest, longest)
        self.register_buffer("ends", ends)
        own = torch.arange(self.contexts)
        self.register_buffer("own", own * self.size)
        self.register_buffer("patterns", own * PATTERNS)
        units = [squared * PATTERNS, self.vocab_size * PATTERNS, PATTERNS, 1]
        sizes = [CHECKS, self.vocab_size, self.vocab_size, PATTERNS]
        self.register_buffer("units", torch.tensor(units))
        self.register_buffer("sizes", torch.tensor(sizes))
        self.register_buffer("blank", torch.tensor([1, 0, 0, 0]))
        self.register_buffer("transitions", inner.transitions)
        scores, shares = inner.scores().detach(), inner.shares().detach()
        self.register_buffer("scores", scores.reshape(-1, 1))
        self.register_buffer("shares", torch.stack([shares, 1 - shares], 2).view(-1, 2))
        joint = torch.cat([head.weight.detach(), inner.gate.weight.detach()])
        self.register_buffer("head", joint.T.contiguous())
        bias = torch.cat([head.bias.detach(), inner.gate.bias.detach()])
        self.register_buffer("head_bias", bias)
        self.followed = WeightsByToken(self.vocab_size)

    def forward(
        self, token: Tensor, learn: Tensor, features: Tensor, past: State, present: State
    ) -> Tensor:
        """Run one step.

        Args:
            token: ``[B, 1]``.
            learn: ``[B]``; 0 stores nothing.
            features: Normalised features of the last CNN, ``[B, F]``.
            past: The state before the step.
            present: The state after the step; receives the memory's tensors.

        Returns:
            Log-probabilities ``[B, V]``.
        """
        table, came = self._store(token, learn, past)
        present["memory_slots"] = table
        hashes = self._hashes(token, past, present)
        places = hashes % self.size + self.own
        checks = (hashes // self.size % CHECKS).unsqueeze(2)  # [B, n, 1]
        stored = torch.gather(table, 1, places).long().unsqueeze(2)
        slots = stored // self.units % self.sizes
        found = slots[:, :, :1] == checks
        slots = torch.where(found, slots, checks * self.blank)  # [B, n, 4]
        # Read and written as one tensor, so that past and present may share a buffer.
        present["context_slots"] = torch.cat([places.unsqueeze(2), stored, slots], dim=2)
        present["position"] = past["position"] + 1
        if self.adapts:
            adapts = (learn >= 1).to(features.dtype).unsqueeze(1)
            shares, mixed = past["context_shares"], past["context_logits"]
            present["adapted"] = adapt(past["adapted"], shares, mixed, came, token, adapts)
        return self._mix(features, slots, present)

    def _store(self, token: Tensor, learn: Tensor, past: State) -> tuple[Tensor, Tensor]:
        """The table after the token, and where it followed before: ``[B, M]``, ``[B, n, 2]``."""
        places, stored, *slots = past["context_slots"].split(1, dim=2)
        after = Slots(*slots).followed_by(token.unsqueeze(2), self.transitions)
        packed = (torch.cat(after, dim=2) * self.units).sum(2)
        kept = torch.where(learn.unsqueeze(1) > 0, packed, stored.squeeze(2))
        came = (torch.cat([slots[1], slots[2]], dim=2) == token.unsqueeze(2)).float()
        return past["memory_slots"].scatter(1, places.squeeze(2), kept.to(self.kind)), came

    def _hashes(self, token: Tensor, past: State, present: State) -> Tensor:
        """Hashes of the contexts after the token, ``[B, n]``."""
        seen = torch.cat([past["context_tokens"], token + 1], dim=1)  # [B, L]
        present["context_tokens"] = seen[:, 1:]
        outside = F.embedding(seen, self.outside).flatten(1)  # [B, 2 L]
        inside = (outside @ self.ends < 0.5).long()
        both = torch.cat([seen, seen * inside], dim=1).unsqueeze(1)
        return (both * self.multipliers).sum(2) % PRIME

    def _mix(self, features: Tensor, slots: Tensor, present: State) -> Tensor:
        joint = torch.addmm(self.head_bias, features, self.head)
        logits, gate = torch.split(joint, [self.vocab_size, self.contexts], dim=1)
        at = slots[:, :, 3] + self.patterns
        score = F.embedding(at, self.scores).squeeze(2) + gate
        if self.adapts:
            bias, log_temperature = torch.split(present["adapted"], [self.contexts, 1], dim=1)
            score = score + bias
        weight = torch.exp(score.clamp_max(SUREST))  # [B, n]
        total = 1 + weight.sum(1, keepdim=True)
        shares = F.embedding(at, self.shares) * (weight / total).unsqueeze(2)  # [B, n, 2]
        followed = self.followed(shares.flatten(1).unsqueeze(1), slots[:, :, 1:3].flatten(1))
        mixed = torch.log((torch.softmax(logits, dim=1) / total + followed).clamp_min(FLOOR))
        if not self.adapts:
            return mixed
        present["context_shares"], present["context_logits"] = shares, mixed
        return torch.log_softmax(mixed * log_temperature.exp(), dim=1)

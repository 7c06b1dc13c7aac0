"""The memory of contexts as a single decoding step.

A small model's time goes into dispatching nodes, so everything that depends on a pattern of counts
is one row of a table, and whole vectors are divided, compared and added at once.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...runtime.context_slots import CHECKS, PATTERNS
from ...train.config.model_config import LONGEST_CONTEXT
from ...train.model.adaptation import adapt
from ...train.model.context_memory import ContextMemory
from ...train.model.context_slots import PRIME, slot_type, transitions
from ...train.model.limits import FLOOR, SUREST
from ...train.model.state import State
from .decode_memory import WeightsByToken

__all__ = ["DecodeContexts"]

_PLACE, _FIRST, _SECOND, _PATTERN = 0, 3, 4, 5
"""Columns of what was looked up last; see :mod:`rillet.runtime.context_slots`."""

_LEARNS = 4 * PATTERNS
"""Where the rows of :func:`_changes` begin for a token that is learnt."""


class DecodeContexts(nn.Module):
    """Store what followed the last contexts, look the new ones up, and mix.

    Args:
        inner: The trained memory.
        head: The last CNN's head. The gate reads the same features and joins its matrix product.
    """

    changes: Tensor
    cases: Tensor
    tokens: Tensor
    columns: Tensor
    newest: Tensor
    breaks: Tensor
    newer: Tensor
    last: Tensor
    word: Tensor
    own: Tensor
    units: Tensor
    sizes: Tensor
    patterns: Tensor
    scores: Tensor
    shares: Tensor
    pair: Tensor
    one: Tensor
    ones: Tensor
    head: Tensor
    head_bias: Tensor
    gate: Tensor

    def __init__(self, inner: ContextMemory, head: nn.Linear) -> None:
        super().__init__()
        self.vocab_size, self.size = inner.vocab_size, inner.size
        self.contexts = len(inner.contexts)
        self.adapts = inner.adapts
        self.kind = slot_type(self.vocab_size)
        self.register_buffer("changes", _changes(self.vocab_size))
        self.register_buffer("cases", torch.tensor([2.0 * PATTERNS, PATTERNS]))
        self.register_buffer("tokens", torch.tensor([_FIRST, _SECOND]))
        column = torch.arange(6)
        self.register_buffer("columns", (column > _PLACE) & (column < _PATTERN))
        self.register_buffer("newest", (column == _PATTERN).long())
        # Twice what breaks the word in all newer tokens, and what ends it in the token itself:
        # whatever is no part of a word also breaks it, so their sum tells the two apart.
        self.register_buffer("breaks", inner.outside.sum(1).float())  # [V + 1]
        newer = 2 * torch.ones(LONGEST_CONTEXT, LONGEST_CONTEXT).tril(-1)  # [newer, older]
        self.register_buffer("newer", newer + torch.eye(LONGEST_CONTEXT))
        # Oldest first, as the tokens come.
        self.register_buffer("last", inner.last.flip(1).contiguous())  # [n, L]
        self.register_buffer("word", (inner.last + inner.word).flip(1).contiguous())
        own = torch.arange(self.contexts)
        self.register_buffer("own", (own * self.size).unsqueeze(1))
        self.register_buffer("patterns", own * PATTERNS)
        self.register_buffer("units", torch.tensor([self.vocab_size * PATTERNS, PATTERNS, 1]))
        sizes = [self.vocab_size, self.vocab_size, PATTERNS]
        self.register_buffer("sizes", torch.tensor(sizes))
        # The scores include the gate's bias.
        scores = inner.scores().detach() + inner.gate.bias.detach().unsqueeze(1)
        self.register_buffer("scores", scores.flatten())
        shares = inner.shares().detach()
        self.register_buffer("shares", torch.stack([shares, 1 - shares], 2).view(-1, 2))
        self.register_buffer("pair", torch.arange(2))
        self.register_buffer("one", torch.ones(1))
        self.register_buffer("ones", torch.ones(self.contexts, 1))
        self.register_buffer("head", head.weight.detach().T.contiguous())
        self.register_buffer("head_bias", head.bias.detach())
        self.register_buffer("gate", inner.gate.weight.detach().T.contiguous())
        self.followed = WeightsByToken(self.vocab_size)

    def forward(
        self, token: Tensor, learn: Tensor, features: Tensor, past: State, present: State
    ) -> Tensor:
        """Run one step.

        Args:
            token: ``[B, 1]``.
            learn: ``[B]``; 0 stores nothing, and less than 1 leaves the online weights.
            features: Normalised features of the last CNN, ``[B, F]``.
            past: The state before the step.
            present: The state after the step; receives the memory's tensors.

        Returns:
            Log-probabilities ``[B, V]``.
        """
        learn = learn.unsqueeze(1)
        came = self._store(token, learn, past, present)
        found = self._look_up(self._hashes(token, past, present), present)
        present["position"] = past["position"] + 1
        if self.adapts:
            adapts = (learn >= 1).to(features.dtype)
            shares, mixed = past["context_shares"], past["context_logits"]
            present["adapted"] = adapt(past["adapted"], shares, mixed, came, token, adapts)
        return self._mix(features, found, present)

    def _store(self, token: Tensor, learn: Tensor, past: State, present: State) -> Tensor:
        """Store the token; return where it followed before, ``[B, n, 2]``."""
        slots, token = past["context_slots"], token.unsqueeze(2)
        came = (slots.index_select(2, self.tokens) == token).to(self.cases.dtype)
        # Anything above zero is far above this bound.
        learns = (learn * 1e38).clamp(0, _LEARNS)
        # Multiplied and summed: few engines take a product with a vector for one of matrices.
        case = (came * self.cases).sum(2)
        change = (case + learns).long() + slots[:, :, _PATTERN]
        # [token, stored, check, first, second, token + 1]
        values = torch.where(self.columns, slots, token + self.newest)
        stored = (values * F.embedding(change, self.changes)).sum(2).to(self.kind)
        present["memory_slots"] = past["memory_slots"].scatter(1, slots[:, :, _PLACE], stored)
        return came

    def _hashes(self, token: Tensor, past: State, present: State) -> Tensor:
        """Hashes of the contexts after the token, ``[B, n, 1]``."""
        seen = torch.cat([past["context_tokens"], token + 1], dim=1)  # [B, L]
        present["context_tokens"] = seen[:, 1:]
        seen = seen.unsqueeze(1)
        inside = self.breaks[seen] @ self.newer < 1.5  # [B, 1, L]
        multipliers = torch.where(inside, self.word, self.last)  # [B, n, L]
        return (seen * multipliers).sum(2, keepdim=True) % PRIME

    def _look_up(self, hashes: Tensor, present: State) -> Tensor:
        """What followed the contexts: two tokens and their pattern, ``[B, n, 3]``."""
        place = hashes % self.size + self.own
        check = hashes // self.size % CHECKS
        stored = torch.gather(present["memory_slots"], 1, place.squeeze(2)).long().unsqueeze(2)
        same = stored // (self.vocab_size * self.vocab_size * PATTERNS) == check
        # A slot of another context is empty.
        found = stored // self.units % self.sizes * same.long()
        # Read and written as one tensor, so that past and present may share a buffer.
        present["context_slots"] = torch.cat([place, stored, check, found], dim=2)
        return found

    def _mix(self, features: Tensor, found: Tensor, present: State) -> Tensor:
        logits = torch.addmm(self.head_bias, features, self.head)
        at = found[:, :, 2] + self.patterns
        score = self.scores[at]
        if self.adapts:
            bias, log_temperature = torch.split(present["adapted"], [self.contexts, 1], dim=1)
            score = score + bias
        score = torch.addmm(score, features, self.gate)
        weight = torch.exp(score.clamp_max(SUREST))  # [B, n]
        total = torch.addmm(self.one, weight, self.ones)  # 1 + their sum
        shares = self.shares[at] * (weight / total).unsqueeze(2)  # [B, n, 2]
        weights = shares.view(-1, 1, 2 * self.contexts)
        followed = self.followed(weights, found.index_select(2, self.pair).flatten(1))
        mixed = torch.log((torch.softmax(logits, dim=1) / total + followed).clamp_min(FLOOR))
        if not self.adapts:
            return mixed
        present["context_shares"], present["context_logits"] = shares, mixed
        return torch.log_softmax(mixed * log_temperature.exp(), dim=1)


def _changes(vocab_size: int) -> Tensor:
    """What a slot becomes after a token, as factors of its packed value, ``[8 PATTERNS, 6]``.

    The first half is for rows that learn nothing. The rest is for a new token, for the second, for
    the first, and for a first that is also the second, as in a slot that has met one token. The
    factors are of the token, the stored value, the check, the first and the second token, and of
    the token + 1.
    """
    unit, pair = vocab_size * PATTERNS, vocab_size * vocab_size * PATTERNS
    unchanged = torch.tensor([0, 1, 0, 0, 0, 0]).repeat(4, PATTERNS, 1)
    changed = torch.tensor([unit, 0, pair, PATTERNS, 0, 0]).repeat(4, PATTERNS, 1)
    changed[2:, :, _FIRST], changed[2:, :, _SECOND] = 0, PATTERNS  # the second stays the second
    new, second, first = transitions().view(3, PATTERNS)
    # The token + 1, less the token, is 1.
    pattern = torch.stack([new, second, first, first])
    changed[:, :, 0] -= pattern
    changed[:, :, 5] = pattern
    return torch.cat([unchanged, changed]).flatten(0, 1)

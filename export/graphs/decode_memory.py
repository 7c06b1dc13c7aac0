"""The stream's memory as a single decoding step with folded weights."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...train.model.limits import FLOOR, SUREST
from ...train.model.memory_keys import ReservoirKey
from ...train.model.recall import least_weight
from ...train.model.state import State
from ...train.model.stream_memory import StreamMemory

__all__ = ["DecodeMemory", "WeightsByToken"]

_LARGEST_ONE_HOT = 128
"""Largest vocabulary that is read one-hot. Larger ones are read as two digits, which is faster at
256 tokens (88.6 µs a step against 93.0) and slower at 65 (by 8 µs)."""


class DecodeMemory(nn.Module):
    """Store (previous key, token), look up the new key, and combine with the network.

    With ``o`` the gate's logit, ``d = exp(-o)``, ``s`` the network's distribution, ``m`` the
    weights recalled for each token, ``z`` their sum and ``c`` the gate's constant, the prediction
    is ``((d (z + c) + c) s + m) / (d (z + c) + c + z)``.

    Args:
        inner: The trained memory.
        head: The last CNN's head. The part of the gate that reads the same features is merged
            into its matrix product.
    """

    fall: Tensor
    least: Tensor
    columns: Tensor
    c: Tensor
    head: Tensor
    head_bias: Tensor
    found_weight: Tensor
    doubt_weight: Tensor
    doubt_bias: Tensor
    projection: Tensor

    def __init__(self, inner: StreamMemory, head: nn.Linear) -> None:
        super().__init__()
        self.capacity, self.vocab_size = inner.capacity, inner.vocab_size
        beta = inner.gate.log_beta.detach().exp()
        # A product with a row of -beta / 2 scales the squared distances and sums them.
        self.register_buffer("fall", (-beta / 2).expand(1, inner.key_width).contiguous())
        self.register_buffer("least", least_weight(beta))
        self.side_by_side = next(count for count in (16, 8, 4, 2, 1) if self.capacity % count == 0)
        self.register_buffer("columns", torch.zeros(1, 1, inner.key_width).long())
        self.followed = WeightsByToken(inner.vocab_size)
        self.suffix = None
        if isinstance(inner.key, ReservoirKey):
            # Projects the states before and after the token to their keys in one product.
            projection = torch.kron(torch.eye(2), inner.key.projection)
            self.register_buffer("projection", projection.contiguous())
        else:
            self.suffix = inner
        self.key_width = inner.key_width
        gate = inner.gate
        self.register_buffer("c", gate.log_c.detach().exp())
        features = gate.hidden.in_features - 2
        seen = gate.hidden.weight.detach()
        both = torch.cat([head.weight.detach(), seen[:, :features]])
        self.register_buffer("head", both.T.contiguous())
        self.register_buffer(
            "head_bias", torch.cat([head.bias.detach(), gate.hidden.bias.detach()])
        )
        self.hidden = len(seen)
        self.register_buffer("found_weight", seen[:, features:].T.contiguous())
        self.register_buffer("doubt_weight", -gate.output.weight.detach().T.contiguous())
        self.register_buffer("doubt_bias", -gate.output.bias.detach())

    def forward(
        self,
        token: Tensor,
        learn: Tensor,
        reservoir: Tensor | None,
        features: Tensor,
        past: State,
        present: State,
    ) -> Tensor:
        """Run one step.

        Args:
            token: ``[B, 1]``.
            learn: ``[B]``; 1 stores the token, 0 does not.
            reservoir: The reservoir's states before and after the token, ``[B, 2 N]``.
            features: Normalised features of the last CNN, ``[B, F]``.
            past: The state before the step.
            present: The state after the step; receives the memory's tensors.

        Returns:
            Log-probabilities ``[B, V]``.
        """
        before, query = self._keys(token, reservoir, past, present).chunk(2, dim=1)
        present["position"] = past["position"] + 1
        slot = ((present["position"] + (self.capacity - 1)) % self.capacity).view(-1, 1, 1)
        before = before * learn.view(-1, 1, 1)
        keys = past["memory_keys"].scatter(1, slot + self.columns, before)
        tokens = past["memory_tokens"].scatter(1, slot.squeeze(2), token)
        present["memory_keys"], present["memory_tokens"] = keys, tokens
        weights = torch.relu(torch.exp(self._exponent(keys, query)) - self.least)
        return self._combine(features, self.followed(weights, tokens))

    def _exponent(self, keys: Tensor, query: Tensor) -> Tensor:
        """Compute ``-beta |k - k_j|^2 / 2``, ``[B, 1, M]``.

        Subtract rather than multiply: a product near 1 loses the digits that matter. Several
        keys are laid side by side, because subtracting short rows takes four times as long.

        Args:
            keys: ``[B, M, n]``.
            query: ``[B, 1, n]``.
        """
        wide = self.side_by_side * self.key_width
        rows = keys.view(-1, self.capacity // self.side_by_side, wide)
        differences = rows - query.repeat(1, 1, self.side_by_side)
        squares = (differences * differences).view(-1, self.capacity, self.key_width)
        return self.fall @ squares.transpose(1, 2)

    def _keys(
        self,
        token: Tensor,
        reservoir: Tensor | None,
        past: State,
        present: State,
    ) -> Tensor:
        """Compute the keys before and after the token, ``[B, 2, n]``."""
        if self.suffix is not None:
            return self.suffix.keys(token, None, past, present)
        assert reservoir is not None
        raw = (reservoir @ self.projection).view(-1, 2, self.key_width)
        length: Tensor = torch.linalg.vector_norm(raw, dim=2, keepdim=True)
        return raw / length.clamp_min(1e-6)

    def _combine(self, features: Tensor, recalled: Tensor) -> Tensor:
        """Combine features ``[B, F]`` and recalled weights ``[B, V]`` to ``[B, V]`` log-probs."""
        joint = torch.addmm(self.head_bias, features, self.head)
        logits, hidden = torch.split(joint, [self.vocab_size, self.hidden], dim=1)
        z = recalled.sum(1, keepdim=True)
        reached = z + self.c
        sure = torch.cat([z, recalled.amax(1, keepdim=True)], dim=1) / reached  # [B, 2]
        hidden = F.silu(torch.addmm(hidden, sure, self.found_weight))
        doubt = torch.addmm(self.doubt_bias, hidden, self.doubt_weight)
        doubt = torch.exp(doubt.clamp(-SUREST, SUREST))
        network = doubt * reached + self.c  # [B, 1]
        mixed = torch.softmax(logits, dim=1) * network + recalled
        return torch.log((mixed / (network + z)).clamp_min(FLOOR))


class WeightsByToken(nn.Module):
    """Sums the weights of the memory's entries by the token that followed each.

    Vocabularies of characters and bytes are read one-hot, which is exact and fast. A token of a
    larger vocabulary is written as two digits, each one-hot. The outer product of the two digits
    is one-hot again, so a product of two narrow matrices gives the same sums.

    Args:
        vocab_size: Number of tokens V.
        largest_one_hot: Largest vocabulary to read one-hot.
    """

    one_hot: Tensor
    high: Tensor
    low: Tensor

    def __init__(self, vocab_size: int, largest_one_hot: int = _LARGEST_ONE_HOT) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.digits = vocab_size > largest_one_hot
        if not self.digits:
            self.register_buffer("one_hot", torch.eye(vocab_size))
            return
        radix = math.isqrt(vocab_size - 1) + 1
        number = torch.arange(vocab_size)
        highest = (vocab_size - 1) // radix + 1
        self.register_buffer("high", torch.eye(highest)[number // radix])
        self.register_buffer("low", torch.eye(radix)[number % radix])

    def forward(self, weights: Tensor, tokens: Tensor) -> Tensor:
        """Sum weights ``[B, 1, M]`` of tokens ``[B, M]`` to ``[B, V]``."""
        if not self.digits:
            return (weights @ F.embedding(tokens, self.one_hot)).squeeze(1)
        high = F.embedding(tokens, self.high) * weights.transpose(1, 2)
        sums = high.transpose(1, 2) @ F.embedding(tokens, self.low)  # [B, high, low]
        return sums.flatten(1)[:, : self.vocab_size]

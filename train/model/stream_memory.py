"""The memory of the stream: what followed when it was in a similar state before."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config.model_config import DualCNNConfig
from . import ring_buffer as ring
from .causal import newest
from .memory_keys import ReservoirKey, SuffixKey
from .recall import recall

__all__ = ["MemoryGate", "StreamMemory", "combine"]

FLOOR = 1e-20
"""Least probability under the logarithm, so that no logit is ever infinite. A maximum and
not a sum: the exporter's optimiser takes such a small summand for zero and drops it."""

SUREST = 30.0
"""Largest size of the gate's logit: its exponential stays a number."""


class MemoryGate(nn.Module):
    """How far to trust the memory at a step.

    With ``q = m / (z + c)``, the memory's share is ``lambda q`` and the network's
    ``1 - lambda sum(q)``: with nothing found, the memory has no say whatever the
    gate. ``lambda`` is a sigmoid of a small network that sees the last CNN's
    features, how much was found, and how sure what was found is.

    Args:
        config: The model's configuration.
    """

    def __init__(self, config: DualCNNConfig) -> None:
        super().__init__()
        # Of one element, not scalars: the exporter's optimiser drops a scalar summand
        # below 1e-8 and a scalar factor within 1e-5 of 1.
        self.log_beta = nn.Parameter(torch.tensor([math.log(config.memory_sharpness)]))
        self.log_c = nn.Parameter(torch.tensor([0.0]))
        self.hidden = nn.Linear(config.wave_features + 2, config.gate_hidden)
        self.output = nn.Linear(config.gate_hidden, 1)

    def forward(self, features: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
        """Weigh the memory.

        Args:
            features: Normed features of the last CNN, ``[B, T, F]``.
            found: What :func:`recall` returned, ``[B, T, V]``.

        Returns:
            The memory's share ``lambda q [B, T, V]``, and the network's
            ``1 - lambda sum(q) [B, T, 1]``.
        """
        c = self.log_c.exp()
        scale = 1 / (found.sum(-1, keepdim=True) + c)
        q = found * scale
        seen = torch.cat([features, q.sum(-1, keepdim=True), q.amax(-1, keepdim=True)], dim=-1)
        doubt = torch.exp(-self.output(F.silu(self.hidden(seen))).clamp(-SUREST, SUREST))
        trust = 1 / (1 + doubt)  # the sigmoid
        # 1 - lambda sum(q), as a sum of what is positive: where the memory is trusted almost
        # wholly, a difference from 1 would leave the other tokens three digits.
        return trust * q, trust * (doubt + c * scale)


def combine(logits: Tensor, share: Tensor, kept: Tensor) -> Tensor:
    """The final prediction, ``log((1 - lambda sum(q)) softmax(logits) + lambda q)``.

    Args:
        logits: Logits without the memory, ``[..., V]``.
        share: The memory's share, ``[..., V]``.
        kept: The network's share, ``[..., 1]``.

    Returns:
        Log-probabilities, ``[..., V]``.
    """
    network = kept * torch.softmax(logits, dim=-1)
    return torch.log((network + share).clamp_min(FLOOR))


class StreamMemory(nn.Module):
    """Stores an entry for each step, and reads all of them at each step.

    An entry is the key of the state before a token, and that token. It is stored in
    circular storage (:mod:`.ring`) that comes in and goes out with the state.

    Args:
        config: The model's configuration.
    """

    def __init__(self, config: DualCNNConfig) -> None:
        super().__init__()
        self.capacity, self.vocab_size = config.memory, config.vocab_size
        self.key_width = config.keys
        self.key: ReservoirKey | SuffixKey
        if config.memory_key == "reservoir":
            self.key = ReservoirKey(config.reservoir_size, config.key_width)
        else:
            self.key = SuffixKey(
                config.vocab_size, config.code_width, config.suffix_length, config.seed
            )
        self.gate = MemoryGate(config)

    def keys(
        self,
        tokens: Tensor,
        before: Tensor | None,
        state: dict[str, Tensor],
        present: dict[str, Tensor],
    ) -> Tensor:
        """Keys before the first token of a chunk and after each.

        Args:
            tokens: ``[B, T]``.
            before: Reservoir states before the first token and after each, ``[B, T + 1, N]``.
            state: The state before the chunk.
            present: The state after it; the suffix is added, where it is the key.

        Returns:
            ``[B, T + 1, n]``.
        """  # fmt: skip
        if isinstance(self.key, ReservoirKey):
            assert before is not None
            keys: Tensor = self.key(before)
            return keys
        seen = torch.cat([state["suffix"], self.key.drive(tokens)], dim=1)  # [B, L + T, w]
        present["suffix"] = newest(seen, self.key.length)
        after: Tensor = self.key(seen)
        return after

    def remember(
        self,
        tokens: Tensor,
        keys: Tensor,
        learn: Tensor | None,
        state: dict[str, Tensor],
        present: dict[str, Tensor],
        fast: torch.dtype | None = None,
        last: bool = False,
    ) -> Tensor:
        """Store (key before, token) for each step, then read with the new keys.

        Args:
            tokens: ``[B, T]``.
            keys: What :meth:`keys` returned, ``[B, T + 1, n]``.
            learn: What each row's new keys are multiplied by, ``[B]``; 1 when absent.
            state: The state before the chunk.
            present: The state after it; the memory's tensors are added.
            fast: Round as training may, products in this type; see :func:`recall`.
            last: Read after the last token only.

        Returns:
            How much each token is what followed, ``[B, T, V]``; ``[B, 1, V]`` for the last.
        """
        length, capacity = tokens.shape[1], self.capacity
        new = keys[:, :-1]
        if learn is not None:
            new = new * learn.view(-1, 1, 1)
        slots, position = ring.order(state["position"], length, capacity)
        ordered = ring.in_order(state["memory_keys"], slots, new)
        stored = ring.in_order(state["memory_tokens"], slots, tokens)
        present["memory_keys"] = ring.store(ordered, position, capacity)
        present["memory_tokens"] = ring.store(stored, position, capacity)
        present["position"] = position
        if last:
            # The last step sees the newest M entries, and those are what is now stored.
            query, visible = keys[:, -1:], torch.ones(1, capacity, device=keys.device)
            ordered, stored = newest(ordered, capacity), newest(stored, capacity)
        else:
            query, visible = keys[:, 1:], ring.visible(length, capacity, keys.device)
        followed = F.embedding(stored, torch.eye(self.vocab_size, device=keys.device))  # one-hot
        return recall(query, ordered, followed, self.gate.log_beta.exp(), visible, fast)

    def forward(
        self, logits: Tensor, features: Tensor, found: Tensor, trust: Tensor | None = None
    ) -> Tensor:
        """Mix what was found into a prediction.

        Args:
            logits: Logits without the memory, ``[B, T, V]``.
            features: What the gate sees, ``[B, T, F]``.
            found: What :meth:`remember` returned, ``[B, T, V]``.
            trust: What each row's gate is multiplied by, ``[B]``; 1 when absent.

        Returns:
            Log-probabilities, ``[B, T, V]``.
        """
        share, kept = self.gate(features, found)
        if trust is not None:
            trusted = trust.view(-1, 1, 1)
            share, kept = share * trusted, kept * trusted + (1 - trusted)
        return combine(logits, share, kept)

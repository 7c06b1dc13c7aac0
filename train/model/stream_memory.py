"""The stream's memory: what followed earlier when the state was similar."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config.model_config import DualCNNConfig
from . import ring_buffer
from .causal import newest
from .limits import FLOOR, SUREST
from .memory_keys import ReservoirKey, SuffixKey
from .recall import recall_tokens

__all__ = ["MemoryGate", "StreamMemory", "combine"]


class MemoryGate(nn.Module):
    """Decide how far to trust the memory at each step.

    With ``q = m / (z + c)``, the memory's share is ``lambda q`` and the network's is
    ``1 - lambda sum(q)``: a memory that recalls nothing has no influence, whatever the gate.
    ``lambda`` is the sigmoid of a small network, which sees the last CNN's features, how much
    was recalled, and how concentrated it is.

    Args:
        config: The model's configuration.
    """

    def __init__(self, config: DualCNNConfig) -> None:
        super().__init__()
        # Tensors of one element: the exporter's optimizer drops a scalar summand below 1e-8
        # and a scalar factor within 1e-5 of 1.
        self.log_beta = nn.Parameter(torch.tensor([math.log(config.memory_sharpness)]))
        self.log_c = nn.Parameter(torch.tensor([0.0]))
        self.hidden = nn.Linear(config.wave_features + 2, config.gate_hidden)
        self.output = nn.Linear(config.gate_hidden, 1)

    def forward(self, features: Tensor, recalled: Tensor) -> tuple[Tensor, Tensor]:
        """Weigh the memory against the network.

        Args:
            features: Normed features of the last CNN, ``[B, T, F]``.
            recalled: Result of :func:`recall_tokens`, ``[B, T, V]``.

        Returns:
            The memory's share ``lambda q [B, T, V]``, and the network's share
            ``1 - lambda sum(q) [B, T, 1]``.
        """
        c = self.log_c.exp()
        scale = 1 / (recalled.sum(-1, keepdim=True) + c)
        q = recalled * scale
        seen = torch.cat([features, q.sum(-1, keepdim=True), q.amax(-1, keepdim=True)], dim=-1)
        doubt = torch.exp(-self.output(F.silu(self.hidden(seen))).clamp(-SUREST, SUREST))
        trust = 1 / (1 + doubt)  # the sigmoid
        # Compute 1 - lambda sum(q) as a sum of positive terms: if the memory is trusted almost
        # completely, subtracting from 1 would leave three digits for the other tokens.
        return trust * q, trust * (doubt + c * scale)


def combine(logits: Tensor, share: Tensor, kept: Tensor) -> Tensor:
    """Mix network and memory: ``log((1 - lambda sum(q)) softmax(logits) + lambda q)``.

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
    """Store an entry at every step, and read all entries at every step.

    An entry is a token and the key of the state before it. Entries are kept in circular
    storage (:mod:`.ring_buffer`), which is part of the state. That is where the memory forgets: a
    new entry takes the slot of the oldest.

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
        """Compute the keys before the first token of a chunk and after each token.

        Args:
            tokens: ``[B, T]``.
            before: Reservoir states before the first token and after each token,
                ``[B, T + 1, N]``.
            state: State before the chunk.
            present: State after the chunk; a suffix key adds its tensor.

        Returns:
            ``[B, T + 1, n]``.
        """
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
            keys: Result of :meth:`keys`, ``[B, T + 1, n]``.
            learn: Factor for each row's new keys, ``[B]``; 1 by default.
            state: State before the chunk.
            present: State after the chunk; the memory's tensors are added.
            fast: Allow the rounding of training; see :func:`recall_tokens`.
            last: Read after the last token only.

        Returns:
            The mass recalled for each token, ``[B, T, V]``, or ``[B, 1, V]`` for the last
            step only.
        """
        length, capacity = tokens.shape[1], self.capacity
        new = keys[:, :-1]
        if learn is not None:
            new = new * learn.view(-1, 1, 1)
        slots, position = ring_buffer.order(state["position"], length, capacity)
        ordered = ring_buffer.in_order(state["memory_keys"], slots, new)
        stored = ring_buffer.in_order(state["memory_tokens"], slots, tokens)
        present["memory_keys"] = ring_buffer.store(ordered, position, capacity)
        present["memory_tokens"] = ring_buffer.store(stored, position, capacity)
        present["position"] = position
        if last:
            # The last step sees exactly the M entries that are stored now.
            query, visible = keys[:, -1:], torch.ones(1, capacity, device=keys.device)
            ordered, stored = newest(ordered, capacity), newest(stored, capacity)
        else:
            query = keys[:, 1:]
            visible = ring_buffer.visible(length, capacity, keys.device)
        followed = F.embedding(stored, torch.eye(self.vocab_size, device=keys.device))  # one-hot
        return recall_tokens(query, ordered, followed, self.gate.log_beta.exp(), visible, fast)

    def forward(
        self, logits: Tensor, features: Tensor, recalled: Tensor, trust: Tensor | None = None
    ) -> Tensor:
        """Mix what the memory recalled into a prediction.

        Args:
            logits: Logits without the memory, ``[B, T, V]``.
            features: Features that the gate reads, ``[B, T, F]``.
            recalled: Result of :meth:`remember`, ``[B, T, V]``.
            trust: Factor for each row's gate, ``[B]``; 1 by default.

        Returns:
            Log-probabilities, ``[B, T, V]``.
        """
        share, kept = self.gate(features, recalled)
        if trust is not None:
            trusted = trust.view(-1, 1, 1)
            share, kept = share * trusted, kept * trusted + (1 - trusted)
        return combine(logits, share, kept)

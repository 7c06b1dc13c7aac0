"""The model as it reads a prompt: any length, parallel over time except for the recurrence."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...train.model import ring_buffer
from ...train.model.attention import AttentiveReservoir
from ...train.model.context_memory import ContextMemory
from ...train.model.dual_cnn import DualCNN
from ...train.model.reservoir import SparseReservoir
from ...train.model.state import State, in_table_order
from ...train.model.stream_memory import StreamMemory
from ...train.model.wave_cnn import WaveCNN
from .prefill_contexts import PrefillContexts

__all__ = ["PrefillChunk"]


class PrefillChunk(nn.Module):
    """Computes :meth:`rillet.train.DualCNN.compute` with one module per part.

    The modules give the graph's nodes their names.

    Args:
        model: The trained model. Its tensors are shared, never modified.
        last_logits: Predict only after the last token. The other tokens skip everything that only
            the prediction needs, above all the memory lookup; online weights, which follow
            every prediction, need them all.
    """

    def __init__(self, model: DualCNN, last_logits: bool = False) -> None:
        super().__init__()
        self.config, self.last_logits = model.config, last_logits
        # Online weights follow every prediction.
        self.skips = last_logits and not model.config.adapts
        reservoir = model.reservoir
        self.embedding = model.embedder.embedding
        self.reservoir = None if reservoir is None else _Run(reservoir, model.embedder.codes)
        self.attention = _Attend(reservoir) if isinstance(reservoir, AttentiveReservoir) else None
        self.read = model.read
        self.wave_cnn = _Waves(model.wave_cnn)
        self.head = model.wave_cnn.head if model.readout_cnn is None else None
        self.readout_cnn = model.readout_cnn
        self.memory: _Remember | PrefillContexts | None = None
        if isinstance(model.memory, ContextMemory):
            self.memory = PrefillContexts(model.memory)
        elif model.memory is not None:
            self.memory = _Remember(model.memory)

    def forward(self, input_ids: Tensor, learn: Tensor, past: State) -> tuple[Tensor, State]:
        """Read a chunk ``[B, T]``; ``learn [B]`` as in :meth:`rillet.train.DualCNN.forward`."""
        present: State = {}
        x, before = self.embedding(input_ids), None
        if self.reservoir is not None:
            before, present["reservoir"] = self.reservoir(input_ids, past["reservoir"])
        if self.attention is not None:
            x, present["attention_window"] = self.attention(before, x, past["attention_window"])
        elif self.read is not None:
            assert before is not None
            x = x + self.read(before[:, 1:])
        waves, present["wave_context"] = self.wave_cnn(x, past["wave_context"])
        if self.readout_cnn is not None:
            windows, present["wave_buffer"] = ring_buffer.roll(past["wave_buffer"], waves)
            if self.skips:
                waves, windows = waves[:, -1:], present["wave_buffer"]
            logits, features = self.readout_cnn(waves, windows)
        else:
            assert self.head is not None
            features = waves[:, -1:] if self.skips else waves
            logits = self.head(features)
        if self.memory is None:
            present["position"] = past["position"] + input_ids.shape[1]
            final = torch.log_softmax(logits, dim=-1)
        elif isinstance(self.memory, PrefillContexts):
            final = self.memory(input_ids, learn, logits, features, past, present)
            final = final[:, -1:] if self.last_logits else final
        else:
            final = self.memory(
                input_ids, learn, before, logits, features, past, present, self.last_logits
            )
        return final, in_table_order(self.config, present)


class _Run(nn.Module):
    """The recurrence over a chunk: the states before the first token and after each token."""

    drive: Tensor

    def __init__(self, inner: SparseReservoir, codes: Tensor) -> None:
        super().__init__()
        self.inner = inner
        self.register_buffer("drive", inner.drive(codes))

    def forward(self, tokens: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        states = self.inner.run(state, F.embedding(tokens, self.drive))
        # The past is read once and the present is sliced from that copy, so a graph may write
        # the present over the past.
        before = torch.cat([state.unsqueeze(1), states], dim=1)
        return before, before[:, -1]


class _Attend(nn.Module):
    """Windowed attention over a chunk."""

    def __init__(self, inner: AttentiveReservoir) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, before: Tensor, x: Tensor, window: Tensor) -> tuple[Tensor, Tensor]:
        attended = self.inner.attend(before[:, 1:], x, window)
        return attended.states, attended.window


class _Waves(nn.Module):
    """The first CNN over a chunk."""

    def __init__(self, inner: WaveCNN) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        waves: tuple[Tensor, Tensor] = self.inner(x, context)
        return waves


class _Remember(nn.Module):
    """Stores an entry per token, recalls for each prediction, and combines the two."""

    def __init__(self, inner: StreamMemory) -> None:
        super().__init__()
        self.inner = inner

    def forward(
        self,
        tokens: Tensor,
        learn: Tensor,
        before: Tensor | None,
        logits: Tensor,
        features: Tensor,
        past: State,
        present: State,
        last: bool,
    ) -> Tensor:
        keys = self.inner.keys(tokens, before, past, present)
        recalled = self.inner.remember(tokens, keys, learn, past, present, last=last)
        final: Tensor = self.inner(logits, features, recalled)
        return final

"""The whole model, as one function from tokens and state to logits and state."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import AttentiveReservoir
from .config import DualCNNConfig
from .embedder import SinusoidalEmbedder
from .memory import recall
from .readout_cnn import ReadoutCNN, combine
from .wave_buffer import RollingWaveBuffer
from .wave_cnn import WaveCNN

__all__ = ["DualCNN", "DualCNNOutput", "State", "in_table_order", "state_shapes"]

State = dict[str, Tensor]
"""Everything that the model remembers: tensors by name, batch first."""


@dataclass(frozen=True)
class DualCNNOutput:
    """What one call of the model computes.

    Attributes:
        logits: The final prediction, memory included, ``[B, T, V]``.
        first_logits: The first CNN's own prediction, ``[B, T, V]``.
        without_memory: The second CNN's logits without the memory, ``[B, T, V]``.
        state: The state after the chunk.
    """

    logits: Tensor
    first_logits: Tensor
    without_memory: Tensor
    state: State


def state_shapes(config: DualCNNConfig) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Shape without the batch axis, and type, of each state tensor, in order."""
    real, whole = torch.float32, torch.int64
    shapes: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
        "reservoir": ((config.reservoir_size,), real),
        "attention_window": ((config.attention_window - 1, 2 * config.width), real),
        "wave_context": ((config.wave_kernel - 1, config.wave_blocks * config.width), real),
        "wave_buffer": ((config.wave_window, config.wave_features), real),
    }
    if config.memory:
        shapes["memory_keys"] = ((config.memory, config.key_width), real)
        shapes["memory_tokens"] = ((config.memory,), whole)
    shapes["position"] = ((), whole)
    return shapes


def in_table_order(config: DualCNNConfig, state: State) -> State:
    """The same tensors in the order of :func:`state_shapes`: graphs name them by place."""
    return {name: state[name] for name in state_shapes(config)}


class DualCNN(nn.Module):
    """A dual CNN over an attentive reservoir, with a memory of the stream.

    Training, prefill and decoding are this one function at different T; any way
    of cutting a text into chunks gives the same logits and the same state.

    Args:
        config: The model's configuration.

    Raises:
        ConfigError: The configuration has conflicts.
    """

    def __init__(self, config: DualCNNConfig) -> None:
        super().__init__()
        self.config = config.validate()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.embedder = SinusoidalEmbedder(config.vocab_size, config.code_width, config.width)
            self.reservoir = AttentiveReservoir(config)
            self.wave_cnn = WaveCNN(config)
            self.buffer = RollingWaveBuffer(config)
            self.readout_cnn = ReadoutCNN(config)

    def fit(self, tokens: Tensor) -> DualCNN:
        """Fit the fixed parts, token codes and memory keys, to a corpus.

        Args:
            tokens: The corpus that will be trained on, ``[length]``.

        Returns:
            The model itself.
        """
        self.embedder.fit(tokens, self.config.seed)
        rows = min(16, max(1, len(tokens) // 512))
        sample = tokens[: rows * min(2_000, len(tokens) // rows)].view(rows, -1)
        drive = F.embedding(sample, self.reservoir.drive(self.embedder.codes))
        start = torch.zeros(rows, self.config.reservoir_size)
        states = self.reservoir.run(start, drive)
        self.buffer.fit(states.reshape(-1, self.config.reservoir_size))
        return self

    def zero_state(self, batch: int = 1) -> State:
        """The start of a stream: zeros, everywhere."""
        return {
            name: torch.zeros(batch, *shape, dtype=dtype)
            for name, (shape, dtype) in state_shapes(self.config).items()
        }

    def parameter_count(self) -> int:
        """Number of trained parameters."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    def forward(
        self, tokens: Tensor, state: State, learn: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Read a chunk.

        Args:
            tokens: ``[B, T]``, T at least 1.
            state: The state before the chunk.
            learn: For each row, what the stored keys are multiplied by, ``[B]``:
                1 to learn what is read, 0 not to. 1 when absent.

        Returns:
            Logits ``[B, T, V]`` and the state after the chunk.
        """
        output = self.compute(tokens, state, learn)
        return output.logits, output.state

    def compute(
        self,
        tokens: Tensor,
        state: State,
        learn: Tensor | None = None,
        trust: Tensor | None = None,
    ) -> DualCNNOutput:
        """Like :meth:`forward`, with the predictions of each part.

        Args:
            tokens: ``[B, T]``.
            state: The state before the chunk.
            learn: As in :meth:`forward`.
            trust: For each row, what the gate of the memory is multiplied by,
                ``[B]``; training switches the memory off for some rows with it.

        Returns:
            Predictions and the state after the chunk.
        """
        length = tokens.shape[1]
        drive = F.embedding(tokens, self.reservoir.drive(self.embedder.codes))
        states = self.reservoir.run(state["reservoir"], drive)  # [B, T, N]
        # Each past tensor is read once, and what is present is made from that: a graph
        # may then write the present over the past.
        before = torch.cat([state["reservoir"].unsqueeze(1), states], dim=1)  # [B, T + 1, N]
        attended, attention_window = self.reservoir.attend(
            states, self.embedder.embedding(tokens), state["attention_window"]
        )
        waves, wave_context = self.wave_cnn(attended, state["wave_context"])
        windows, wave_buffer = self.buffer.append(state["wave_buffer"], waves)
        logits, features = self.readout_cnn(waves, windows)
        present = {
            "reservoir": before[:, -1],
            "attention_window": attention_window,
            "wave_context": wave_context,
            "wave_buffer": wave_buffer,
        }
        if self.readout_cnn.gate is not None:
            found = self._remember(tokens, before, state, learn, present)
            share, kept = self.readout_cnn.gate(features, found)
            if trust is not None:
                trusted = trust.view(-1, 1, 1)
                share, kept = share * trusted, kept * trusted + (1 - trusted)
            final = combine(logits, share, kept)
        else:
            present["position"] = state["position"] + length
            final = torch.log_softmax(logits, dim=-1)
        present = in_table_order(self.config, present)
        return DualCNNOutput(final, self.wave_cnn.head(waves), logits, present)

    def _remember(
        self,
        tokens: Tensor,
        before: Tensor,
        state: State,
        learn: Tensor | None,
        present: State,
    ) -> Tensor:
        """Store (key of the state before, token) for each step, then read with the new keys."""
        buffer, gate = self.buffer, self.readout_cnn.gate
        assert gate is not None
        keys = buffer.key(before)  # [B, T + 1, n]
        new = keys[:, :-1]
        if learn is not None:
            new = new * learn.view(-1, 1, 1)
        order, position = buffer.order(state["position"], tokens.shape[1])
        ordered = buffer.in_order(state["memory_keys"], order, new)
        stored = buffer.in_order(state["memory_tokens"], order, tokens)
        present["memory_keys"] = buffer.store(ordered, position)
        present["memory_tokens"] = buffer.store(stored, position)
        present["position"] = position
        followed = F.embedding(stored, torch.eye(self.config.vocab_size))  # one-hot
        visible = buffer.visible(tokens.shape[1])
        beta = gate.log_beta.exp()
        return recall(keys[:, 1:], ordered, followed, beta, visible, fast=self.training)

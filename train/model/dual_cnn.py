"""The whole model: one function from tokens and state to logits and state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...runtime.errors import UsageError
from ..config.model_config import DualCNNConfig
from ..data.token_file import Tokens
from . import ring_buffer
from .attention import Attended, AttentiveReservoir
from .context_memory import ContextMemory
from .dropout_noise import Noise
from .embedder import SinusoidalEmbedder
from .memory_keys import ReservoirKey
from .parts import PARTS, build_part
from .precision import low_precision
from .readout_cnn import ReadoutCNN
from .reservoir import SparseReservoir
from .state import State, in_table_order, state_shapes, zero_state
from .stream_memory import StreamMemory
from .wave_cnn import Dropout, WaveCNN

__all__ = ["DualCNN", "DualCNNOutput", "State", "in_table_order", "state_shapes"]

_FIT_ROWS, _FIT_STEPS = 16, 2_000
"""Streams, and steps of each, that the memory's keys are fitted to; more made no difference."""


@dataclass(frozen=True)
class DualCNNOutput:
    """Result of one call of the model.

    Where the targets were given, the three predictions are the log-probabilities of these alone,
    ``[B, T, 1]``.

    Attributes:
        logits: Final prediction, memory included, as log-probabilities ``[B, T, V]``.
        first_logits: Logits of the first CNN, ``[B, T, V]``.
        without_memory: Logits of the last CNN without the memory, ``[B, T, V]``.
        state: State after the chunk.
        waves: Waves emitted by the first CNN, ``[B, T, F]``.
        keys: Memory keys after each token, ``[B, T, n]``; ``None`` without a memory.
        attended: Result of attention; ``None`` without attention.
    """

    logits: Tensor
    first_logits: Tensor
    without_memory: Tensor
    state: State
    waves: Tensor
    keys: Tensor | None
    attended: Attended | None


class DualCNN(nn.Module):
    """A dual CNN over an attentive reservoir, with a memory of the stream.

    Training, prefill and decoding are this one function at different T: however a text is
    cut into chunks, logits and state are the same. A part that the configuration leaves out
    is ``None``.

    Args:
        config: The model's configuration.
        noise: Source of dropout masks.
        **parts: Parts that replace those of the configuration, by name.

    Raises:
        ConfigError: Settings of the configuration conflict.
        UsageError: A part has an unknown name.
    """

    def __init__(
        self, config: DualCNNConfig, noise: Noise | None = None, **parts: nn.Module | None
    ) -> None:
        super().__init__()
        self.config = config.validate()
        self.noise = noise or Noise()
        self.autocast: torch.dtype | None = None
        unknown = sorted(set(parts) - set(PARTS))
        if unknown:
            raise UsageError(f"{', '.join(unknown)}: no such part; choose from {', '.join(PARTS)}")
        self.embedder: SinusoidalEmbedder
        self.reservoir: SparseReservoir | None
        self.read: nn.Linear | None
        self.wave_cnn: WaveCNN
        self.readout_cnn: ReadoutCNN | None
        self.memory: StreamMemory | ContextMemory | None
        for name in PARTS:
            part = parts[name] if name in parts else build_part(name, config, self.noise)
            setattr(self, name, part)
        for module in self.modules():  # a caller's own part has the noise of the run as well
            if isinstance(module, Dropout):
                module.noise = self.noise
        self.input_dropout = Dropout(config.input_dropout, self.noise)

    def fit(self, tokens: Tensor | Tokens, token_bytes: Sequence[bytes] | None = None) -> DualCNN:
        """Fit the fixed parts (token codes, memory keys, what a word is) to a corpus.

        Args:
            tokens: The corpus to be trained on, ``[length]``.
            token_bytes: The bytes of each token of the vocabulary; the context ``word`` needs
                them.

        Returns:
            The model itself.

        Raises:
            UsageError: The memory has the context ``word``, and the bytes are missing.
        """
        if token_bytes is not None:
            self.fit_words(token_bytes)
        elif isinstance(self.memory, ContextMemory) and "word" in self.memory.contexts:
            raise UsageError(
                "the memory's context 'word' needs to know which tokens form words; pass them: "
                "model.fit(tokens, tokenizer.token_bytes)"
            )
        self.fit_codes(tokens)
        self.fit_keys(tokens)
        return self

    def check_fitted(self) -> None:
        """Refuse to train over fixed parts that were never fitted.

        Raises:
            UsageError: The reservoir would see no token.
        """
        if self.reservoir is not None and not self.embedder.codes.any():
            raise UsageError(
                "the model's token codes are all zero, so that its reservoir sees nothing; fit it "
                "first: model.fit(tokens, tokenizer.token_bytes)"
            )

    def fit_codes(self, tokens: Tensor | Tokens) -> None:
        """Fit the token codes that drive the reservoir, or draw them if they are random."""
        if self.config.codes == "fitted":
            self.embedder.fit(tokens, self.config.seed)
            return
        codes = self.embedder.codes
        generator = torch.Generator().manual_seed(self.config.seed)
        codes.copy_(F.normalize(torch.randn(codes.shape, generator=generator)))

    def fit_words(self, tokens: Sequence[bytes]) -> None:
        """Tell a memory of contexts which tokens form words.

        Args:
            tokens: The bytes of each token of the vocabulary.
        """
        if isinstance(self.memory, ContextMemory):
            self.memory.fit(tokens)

    def fit_keys(self, tokens: Tensor | Tokens) -> None:
        """Fit the memory's keys to the reservoir states that the corpus produces."""
        if not isinstance(self.memory, StreamMemory):
            return
        if not isinstance(self.memory.key, ReservoirKey):
            return
        assert self.reservoir is not None
        rows = min(_FIT_ROWS, max(1, len(tokens) // 512))
        length = min(_FIT_STEPS, len(tokens) // rows)
        head = tokens[: rows * length]
        sample = (head.tensor() if isinstance(head, Tokens) else head).view(rows, length)
        drive = F.embedding(sample, self.reservoir.drive(self.embedder.codes))
        states = self.reservoir.run(torch.zeros(rows, self.reservoir.size), drive)
        self.memory.key.fit(states.reshape(-1, self.reservoir.size))

    def zero_state(self, batch: int = 1) -> State:
        """Return the state at the start of a stream: all zeros."""
        return zero_state(self.config, batch, self.embedder.codes.device)

    def parameter_count(self) -> int:
        """Count the trained parameters."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    def forward(
        self, tokens: Tensor, state: State, learn: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Read a chunk.

        Args:
            tokens: ``[B, T]``, T at least 1.
            state: State before the chunk.
            learn: Factor for each row's stored keys, ``[B]``: 1 stores what is read in the
                memory, 0 does not. 1 by default.

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
        need_weights: bool = False,
        targets: Tensor | None = None,
    ) -> DualCNNOutput:
        """Read a chunk, and return the predictions of every part.

        Args:
            tokens: ``[B, T]``.
            state: State before the chunk.
            learn: As in :meth:`forward`.
            trust: Factor for each row's memory gate, ``[B]``; training uses it to switch the
                memory off for some rows. 1 by default.
            need_weights: Keep the attention weights.
            targets: The tokens that followed, ``[B, T]``, if no others need be predicted: several
                times faster with a large vocabulary.

        Returns:
            Predictions and the state after the chunk.
        """
        present: State = {}
        before = None
        if self.reservoir is not None:
            drive = F.embedding(tokens, self.reservoir.drive(self.embedder.codes))
            states = self.reservoir.run(state["reservoir"], drive)  # [B, T, N]
            # Read each past tensor once and derive the present from that, so that a graph may
            # write the present over the past.
            before = torch.cat([state["reservoir"].unsqueeze(1), states], dim=1)
            present["reservoir"] = before[:, -1]
        # The reservoir and the memory's distances stay in float32: their results are stored and
        # compared later.
        short = self.autocast if self.training else None
        with low_precision(short, tokens.device):
            x = self.input_dropout(self.embedder.embedding(tokens))
            attended = None
            if isinstance(self.reservoir, AttentiveReservoir):
                attended = self.reservoir.attend(states, x, state["attention_window"], need_weights)
                x, present["attention_window"] = attended.states, attended.window
            elif self.read is not None:
                x = x + self.read(states)
            waves, present["wave_context"] = self.wave_cnn(x, state["wave_context"])
            first_logits = self.wave_cnn.head(waves)
            logits, features = first_logits, waves
            if self.readout_cnn is not None:
                windows, present["wave_buffer"] = ring_buffer.roll(state["wave_buffer"], waves)
                logits, features = self.readout_cnn(waves, windows)
        if short is not None:
            logits, features, first_logits = logits.float(), features.float(), first_logits.float()
            present = {name: tensor.float() for name, tensor in present.items()}
        network, keys = logits, None
        if targets is not None:
            first_logits, network = (
                _of_targets(every, targets) for every in (first_logits, logits)
            )
        if isinstance(self.memory, ContextMemory):
            slots = self.memory.remember(tokens, learn, state, present)
            if targets is not None and self.training:
                after = (features, slots, state, present, trust)
                final = self.memory.target_logits(targets, network.squeeze(2), *after).unsqueeze(2)
            else:
                final = self.memory(tokens, learn, logits, features, slots, state, present, trust)
        elif self.memory is not None:
            keys = self.memory.keys(tokens, before, state, present)
            fast = (short or logits.dtype) if self.training else None
            recalled = self.memory.remember(tokens, keys, learn, state, present, fast)
            final = self.memory(logits, features, recalled, trust)
            keys = keys[:, 1:]
        else:
            final = torch.log_softmax(logits, dim=-1)
        if "position" not in present:
            present["position"] = state["position"] + tokens.shape[1]
        if targets is not None and final.shape[2] > 1:
            final = final.gather(2, targets.unsqueeze(2))
        present = in_table_order(self.config, present)
        return DualCNNOutput(final, first_logits, network, present, waves, keys, attended)


def _of_targets(logits: Tensor, targets: Tensor) -> Tensor:
    """Log-probabilities of the targets, ``[B, T, 1]``."""
    chosen = -F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    return chosen.view(*targets.shape, 1)

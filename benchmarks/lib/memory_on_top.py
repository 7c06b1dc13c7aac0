"""Our memory of contexts on top of another network: the same tables and mixing as in our model.

The network is frozen, and only what the memory trains is trained: its scores, its shares, and its
gate, which reads what the network's head reads. Our own model trains both together.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rillet.train import DualCNN, DualCNNConfig
from rillet.train.config.training_config import TrainingConfig
from rillet.train.data.streams import Streams, Text
from rillet.train.data.token_file import Tokens
from rillet.train.loop.optimizer import learning_rate, make_optimizer
from rillet.train.model.context_memory import ContextMemory
from rillet.train.model.state import State, state_shapes

from .baselines import Baseline

__all__ = [
    "Frozen",
    "FrozenBaseline",
    "FrozenDualCNN",
    "MemoryOnTop",
    "fit_memory",
    "memory_config",
    "memory_state",
]


class Frozen(Protocol):
    """A network whose weights stay as they are."""

    width: int

    @property
    def module(self) -> nn.Module:
        """The network itself."""

    def __call__(self, tokens: Tensor, state: Any) -> tuple[Tensor, Tensor, Any]:
        """Logits ``[B, T, V]``, features ``[B, T, F]``, and the next state; ``None`` at first."""


class FrozenBaseline:
    """A baseline; its features are what its head reads."""

    def __init__(self, module: Baseline) -> None:
        self.module, self.width = module.requires_grad_(False), module.head_layer().in_features

    def __call__(self, tokens: Tensor, state: Any) -> tuple[Tensor, Tensor, Any]:
        """As :class:`Frozen`."""
        features, state = self.module.features(tokens, state)
        return self.module.logits(features), features, state


class FrozenDualCNN:
    """Our model without its memory; its features are those of the second CNN."""

    def __init__(self, model: DualCNN) -> None:
        config = model.config.replace(memory=0)
        module = DualCNN(config, memory=None)
        own = model.state_dict()
        module.load_state_dict({name: own[name] for name in module.state_dict()})
        self.module = module.requires_grad_(False).train(model.training)
        self.width = config.wave_features
        self._features: Tensor | None = None
        assert module.readout_cnn is not None
        module.readout_cnn.register_forward_hook(self._note)

    def _note(self, module: nn.Module, inputs: Any, output: tuple[Tensor, Tensor]) -> None:
        self._features = output[1]

    def __call__(self, tokens: Tensor, state: Any) -> tuple[Tensor, Tensor, Any]:
        """As :class:`Frozen`."""
        module = self.module
        before = module.zero_state(len(tokens)) if state is None else state
        output = module.compute(tokens, before)
        assert self._features is not None
        return output.without_memory, self._features, output.state


def memory_config(like: DualCNNConfig, width: int) -> DualCNNConfig:
    """The configuration of a memory like another model's, over features of a width."""
    return like.replace(wave_features=width)


def memory_state(config: DualCNNConfig, batch: int = 1) -> State:
    """The memory's part of the state at the start of a stream."""
    return {
        name: torch.zeros(batch, *shape, dtype=kind)
        for name, (shape, kind) in state_shapes(config).items()
        if name.startswith(("context_", "memory_")) or name in ("adapted", "position")
    }


class MemoryOnTop:
    """A frozen network with a memory.

    Args:
        network: The network.
        memory: The memory.
        config: The memory's configuration.
    """

    def __init__(self, network: Frozen, memory: ContextMemory, config: DualCNNConfig) -> None:
        self.network, self.memory, self.config = network, memory, config

    def read(
        self, tokens: Tensor, state: Any = None, learn: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Any]:
        """Read a chunk.

        Args:
            tokens: ``[B, T]``.
            state: The state that the last call returned; ``None`` at the start of a stream.
            learn: 0 for rows that store nothing, ``[B]``; 1 by default.

        Returns:
            Log-probabilities with the memory and logits without it, ``[B, T, V]``, and the state.
        """
        inner, before = state or (None, memory_state(self.config, len(tokens)))
        logits, features, inner = self.network(tokens, inner)
        present: State = {}
        slots = self.memory.remember(tokens, learn, before, present)
        mixed = self.memory(tokens, learn, logits, features, slots, before, present)
        return mixed, logits, (inner, present)

    def targets(self, tokens: Tensor, following: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Log-probabilities of the tokens that followed, as training needs them."""
        inner, before = state or (None, memory_state(self.config, len(tokens)))
        with torch.no_grad():
            logits, features, inner = self.network(tokens, inner)
        chance = torch.log_softmax(logits, 2).gather(2, following.unsqueeze(2)).squeeze(2)
        present: State = {}
        slots = self.memory.remember(tokens, None, before, present)
        after = (features, slots, before, present)
        return self.memory.target_logits(following, chance, *after), (inner, present)

    @torch.no_grad()
    def losses(self, pieces: Tensor | Tokens, chunk: int = 256) -> tuple[float, float]:
        """Losses with the memory and without it, in nats per token.

        Args:
            pieces: A text, read as one stream, or pieces ``[pieces, length]``, each from zeros.
            chunk: Tokens read at a time.
        """
        if isinstance(pieces, Tokens):
            pieces = pieces.tensor().view(1, -1)
        self.network.module.eval()
        self.memory.eval()
        sums, state = [0.0, 0.0], None
        inputs, targets = pieces[:, :-1], pieces[:, 1:]
        for part, target in zip(inputs.split(chunk, 1), targets.split(chunk, 1), strict=True):
            *both, state = self.read(part, state)
            for index, logits in enumerate(both):
                lost = F.cross_entropy(
                    logits.flatten(0, 1), target.reshape(-1), reduction="none"
                ).double()
                sums[index] += float(lost.sum())
        return sums[0] / targets.numel(), sums[1] / targets.numel()


def fit_memory(
    network: Frozen,
    words: Sequence[bytes],
    text: Text,
    validation: Tensor,
    like: DualCNNConfig,
    training: TrainingConfig,
    patience: int = 3,
    notify: Callable[[str], object] = lambda line: None,
) -> tuple[MemoryOnTop, dict[str, Any]]:
    """Train a memory over a frozen network; the best by validation is kept.

    The network predicts with its dropout, as it does where both are trained together.

    Args:
        network: The network.
        words: The bytes of each token, from which the memory learns what a word is.
        text: The text to train on.
        validation: Pieces of text to choose by, ``[pieces, length]``.
        like: Configuration of a model whose memory it is like.
        training: How to train.
        patience: Validations without a better one after which training stops.
        notify: Called with a line after each validation.

    Returns:
        The network with the memory, and the steps trained, those of the best validation, its loss
        and the memory's parameters.
    """
    config = memory_config(like, network.width)
    memory = ContextMemory(config)
    memory.fit(words)
    top, streams = MemoryOnTop(network, memory, config), Streams(text, training)
    optimizer = make_optimizer(memory, training)
    torch.manual_seed(training.seed)
    best, best_step, kept, state = float("inf"), 0, copy.deepcopy(memory.state_dict()), None
    for step in range(training.steps):
        network.module.train()
        memory.train()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(training, step)
        inputs, following = streams.chunk(step, range(training.batch))
        logits, state = top.targets(inputs, following, state)
        optimizer.zero_grad()
        (-logits.mean()).backward()
        torch.nn.utils.clip_grad_norm_(memory.parameters(), training.clip)
        optimizer.step()
        if (step + 1) % training.validate_every == 0 or step + 1 == training.steps:
            loss, alone = top.losses(validation)
            notify(f"memory, step {step + 1}: {loss:.4f} (without it {alone:.4f})")
            if loss < best:
                best, best_step, kept = loss, step + 1, copy.deepcopy(memory.state_dict())
            elif step + 1 - best_step >= patience * training.validate_every:
                break
    memory.load_state_dict(kept)
    parameters = sum(parameter.numel() for parameter in memory.parameters())
    return top, {
        "steps": step + 1,
        "best_step": best_step,
        "validation": best,
        "parameters": parameters,
    }

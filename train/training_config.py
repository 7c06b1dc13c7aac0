"""Every number that shapes a training run."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from ..runtime.errors import ConfigError

__all__ = ["TrainingConfig"]


@dataclass(frozen=True)
class TrainingConfig:
    """How to train.

    The rows of a batch are contiguous streams: each carries its state from chunk to
    chunk, since that is how the model is used.

    Attributes:
        steps: Optimiser steps.
        batch: Streams trained side by side [B].
        chunk: Tokens of each stream in a step [T].
        learning_rate: Highest learning rate of AdamW (Loshchilov and Hutter, 2019).
        final_rate: Learning rate at the end of the cosine, as a share of the highest.
        warmup: Steps over which the learning rate rises.
        weight_decay: Decay of matrices and filters; biases and norms have none.
        clip: Largest norm of the gradient.
        first_weight: Weight of the first CNN's loss.
        second_weight: Weight of the second CNN's loss, memory included.
        memory_dropout: Share of streams that go without the memory in a step, so
            that the network does not come to lean on it.
        reset: Share of streams that start anew, from zeros, in a step.
        held_out: Share at the end of the corpus that is never trained on; the final
            losses are measured on it.
        validation: Share of the rest, at its end, that progress is measured on.
        validate_every: Steps between two looks at the validation text.
        seed: Seed of dropout and of the choices above.
    """

    steps: int = 800
    batch: int = 32
    chunk: int = 256
    learning_rate: float = 1.5e-2
    final_rate: float = 0.02
    warmup: int = 50
    weight_decay: float = 0.1
    clip: float = 1.0
    first_weight: float = 0.3
    second_weight: float = 0.7
    memory_dropout: float = 0.25
    reset: float = 0.02
    held_out: float = 0.1
    validation: float = 0.05
    validate_every: int = 200
    seed: int = 0

    def validate(self) -> TrainingConfig:
        """Check all settings.

        Raises:
            ConfigError: There are conflicts; the message lists all of them.
        """
        found = []
        for name in ("steps", "batch", "chunk", "validate_every"):
            if getattr(self, name) < 1:
                found.append(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("warmup", "seed", "weight_decay", "memory_dropout", "reset", "final_rate"):
            if getattr(self, name) < 0:
                found.append(f"{name} is {getattr(self, name)}; it must be at least 0")
        for name in ("learning_rate", "clip"):
            if not 0 < getattr(self, name) < 1e6:
                found.append(f"{name} is {getattr(self, name)}; it must lie above 0")
        for name in ("memory_dropout", "reset", "final_rate"):
            if getattr(self, name) > 1:
                found.append(f"{name} is {getattr(self, name)}; it must not be above 1")
        for name in ("held_out", "validation"):
            if not 0 <= getattr(self, name) <= 0.5:
                found.append(f"{name} is {getattr(self, name)}; it must lie between 0 and 0.5")
        total = self.first_weight + self.second_weight
        if self.first_weight < 0 or self.second_weight < 0 or abs(total - 1) > 1e-6:
            found.append(
                f"first_weight is {self.first_weight} and second_weight {self.second_weight}; "
                "they must not be negative and must sum to 1"
            )
        if found:
            raise ConfigError("; ".join(found))
        return self

    def replace(self, **changes: Any) -> TrainingConfig:
        """A copy with some fields changed, validated."""
        return dataclasses.replace(self, **changes).validate()

    def to_dict(self) -> dict[str, Any]:
        """The fields as a dictionary that JSON can hold."""
        return dataclasses.asdict(self)

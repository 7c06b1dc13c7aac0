"""Every number that shapes a training run."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from ...runtime.errors import ConfigError
from .fields import check_fields, choice, number, whole

__all__ = ["TrainingConfig"]


@dataclass(frozen=True)
class TrainingConfig:
    """How to train.

    The rows of a batch are contiguous streams: each carries its state from chunk to
    chunk, since that is how the model is used.

    Attributes:
        tokenizer: ``char``, ``byte``, ``bpe``, or ``auto``: ``char`` where the corpus has
            few distinct characters, else ``byte``.
        bpe_vocab: Tokens of a ``bpe`` tokenizer.
        steps: Optimiser steps.
        batch: Streams trained side by side [B], over all processes.
        chunk: Tokens of each stream in a step [T].
        learning_rate: Highest learning rate of AdamW (Loshchilov and Hutter, 2019).
        final_rate: Learning rate at the end of the cosine, as a share of the highest.
        warmup: Steps over which the learning rate rises.
        weight_decay: Decay of matrices and filters; biases and norms have none.
        clip: Largest norm of the gradient.
        first_weight: Weight of the first CNN's loss.
        second_weight: Weight of the second CNN's loss, memory included.
        network_share: Share of the second CNN's weight that goes to its prediction
            without the memory, so that it does not come to lean on it.
        memory_dropout: Share of streams that go without the memory in a step, for the
            same reason.
        reset: Share of streams that start anew, from zeros, in a step.
        average: Decay of the moving average of the weights that is kept as the result
            (Polyak and Juditsky, 1992); 0 keeps the weights themselves.
        patience: Looks at the validation text without a better loss after which
            training stops; 0 trains to the end.
        precision: ``fp32``; ``bf16``, which computes the network's matrix products in
            bfloat16; or ``auto``, ``bf16`` where the processor has instructions for it.
        report_every: Steps between two progress reports.
        held_out: Share at the end of the corpus that is never trained on; the final
            losses are measured on it.
        held_out_tokens: Most tokens of it that are measured.
        validation: Share of the rest, in pieces spread over it, that progress is measured
            on: its end alone would be missed, since what is held out follows on from it.
        validation_tokens: Most tokens that are set aside so.
        validate_every: Steps between two looks at the validation text.
        checkpoint_every: Steps between two checkpoints; there is one at each look as well.
        seed: Seed of dropout and of the choices above.
    """

    tokenizer: str = choice("auto", ("auto", "char", "byte", "bpe"))
    bpe_vocab: int = whole(1024, 257, 65_536)
    steps: int = whole(2400, 1)
    batch: int = whole(32, 1)
    chunk: int = whole(256, 1)
    learning_rate: float = number(1e-2, above=0, below=1e6)
    final_rate: float = number(0.02, least=0, most=1)
    warmup: int = whole(50)
    weight_decay: float = number(0.1, least=0)
    clip: float = number(1.0, above=0, below=1e6)
    first_weight: float = number(0.3, least=0, most=1)
    second_weight: float = number(0.7, least=0, most=1)
    network_share: float = number(0.5, least=0, most=1)
    memory_dropout: float = number(0.25, least=0, most=1)
    reset: float = number(0.02, least=0, most=1)
    average: float = number(0.998, least=0, below=1)
    patience: int = whole(0)
    precision: str = choice("auto", ("auto", "fp32", "bf16"))
    report_every: int = whole(10, 1)
    held_out: float = number(0.1, least=0, most=0.5)
    held_out_tokens: int = whole(2_000_000, 2)
    validation: float = number(0.02, least=0, most=0.5)
    validation_tokens: int = whole(100_000, 2)
    validate_every: int = whole(200, 1)
    checkpoint_every: int = whole(500, 1)
    seed: int = whole(0)

    def conflicts(self) -> list[str]:
        """Every reason why nothing can be trained, each with its repair."""
        found = check_fields(self)
        total = self.first_weight + self.second_weight
        if abs(total - 1) > 1e-6:
            found.append(
                f"first_weight is {self.first_weight} and second_weight {self.second_weight}; "
                "they must sum to 1: try 0.3 and 0.7"
            )
        return found

    def validate(self) -> TrainingConfig:
        """Check all settings.

        Raises:
            ConfigError: There are conflicts; the message lists all of them.
        """
        found = self.conflicts()
        if found:
            raise ConfigError("; ".join(found))
        return self

    def replace(self, **changes: Any) -> TrainingConfig:
        """A copy with some fields changed, validated."""
        return dataclasses.replace(self, **changes).validate()

    def to_dict(self) -> dict[str, Any]:
        """The fields as a dictionary that JSON can hold."""
        return dataclasses.asdict(self)

"""All settings of a training run."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from ...runtime.errors import ConfigError
from .fields import LARGEST_SEED, check_fields, check_types, choice, make_plain, number, whole

__all__ = ["TrainingConfig"]


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of a training run.

    The rows of a batch are contiguous streams. Each carries its state from chunk to chunk,
    because that is how the model is used.

    Attributes:
        tokenizer: ``char``, ``byte``, ``bpe``, or ``auto``: ``char`` if the corpus has few
            distinct characters, ``byte`` otherwise.
        bpe_vocab: Vocabulary size of a ``bpe`` tokenizer.
        steps: Optimizer steps.
        batch: Streams trained side by side [B], over all processes.
        chunk: Tokens of each stream in a step [T].
        learning_rate: Peak learning rate of AdamW (Loshchilov and Hutter, 2019).
        final_rate: Learning rate at the end of the cosine, as a share of the peak.
        warmup: Steps over which the learning rate rises.
        weight_decay: Weight decay of matrices and filters; biases and norms have none.
        clip: Maximum gradient norm.
        first_weight: Weight of the first CNN's loss.
        second_weight: Weight of the second CNN's loss, memory included.
        network_share: Share of the second CNN's weight given to its prediction without the
            memory, so that the network does not come to rely on the memory.
        memory_dropout: Share of streams trained without the memory in a step, for the same
            reason.
        reset: Share of streams restarted from zeros in a step.
        average: Decay of the moving average of the weights, which is the result of training
            (Polyak and Juditsky, 1992); 0 uses the weights themselves.
        patience: Validations without improvement after which training stops; 0 never stops
            early.
        precision: ``fp32``; ``bf16``, which computes the network's matrix products in
            bfloat16; or ``auto``, which chooses ``bf16`` if the hardware has instructions
            for it.
        report_every: Steps between progress reports.
        held_out: Share at the end of the corpus that is never trained on; the final losses
            are measured on it.
        held_out_tokens: Maximum number of held-out tokens to measure.
        held_out_sample: Tokens of the held-out text that the checkpoint keeps, readable, for
            the checks of export and quantization; 0 keeps none.
        validation: Share of the rest that validation measures, in pieces spread over the
            text. One piece at its end would be missed most, since the held-out text continues
            from there.
        validation_tokens: Maximum number of validation tokens.
        validate_every: Steps between validations.
        checkpoint_every: Steps between checkpoints; every validation writes one as well.
        seed: Seed of dropout and of the random choices above.
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
    held_out_sample: int = whole(24_576, 0, 1_000_000)
    validation: float = number(0.02, least=0, most=0.5)
    validation_tokens: int = whole(100_000, 2)
    validate_every: int = whole(200, 1)
    checkpoint_every: int = whole(500, 1)
    seed: int = whole(0, 0, LARGEST_SEED)

    def __post_init__(self) -> None:
        make_plain(self)

    def conflicts(self) -> list[str]:
        """List everything that prevents training, each with its remedy."""
        if wrong := check_types(self):
            return wrong
        conflicts = check_fields(self)
        total = self.first_weight + self.second_weight
        if abs(total - 1) > 1e-6:
            conflicts.append(
                f"first_weight is {self.first_weight} and second_weight is {self.second_weight}; "
                "they must sum to 1: try 0.3 and 0.7"
            )
        return conflicts

    def validate(self) -> TrainingConfig:
        """Check all settings.

        Returns:
            The configuration itself, so that calls can be chained.

        Raises:
            ConfigError: Settings conflict; the message lists every conflict.
        """
        if conflicts := self.conflicts():
            raise ConfigError("; ".join(conflicts))
        return self

    def replace(self, **changes: Any) -> TrainingConfig:
        """Return a validated copy with some fields changed."""
        return dataclasses.replace(self, **changes).validate()

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return dataclasses.asdict(self)

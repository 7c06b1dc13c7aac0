"""The small models that tests train: one with every part, and its variants."""

from __future__ import annotations

import torch

from rillet.runtime.tokenizer import Tokenizer
from rillet.train import (
    Checkpoint,
    DualCNN,
    DualCNNConfig,
    DualCNNTrainer,
    TrainingConfig,
    make_tokenizer,
)

__all__ = ["SMALL", "VARIANTS", "train_small"]

SMALL = DualCNNConfig(
    code_width=8,
    reservoir_size=24,
    width=12,
    attention_heads=3,
    attention_window=7,
    wave_kernel=3,
    wave_features=10,
    wave_window=5,
    readout_blocks=2,
    hidden=16,
    memory_key="reservoir",
    memory=20,
    key_width=9,
    gate_hidden=4,
    reservoir_density=0.4,
)
"""Every part of the model, each of a different size, with windows that short texts outgrow."""

VARIANTS: dict[str, dict[str, object]] = {
    "single CNN": {"architecture": "single_cnn"},
    "standard reservoir": {"reservoir": "standard"},
    "single CNN, standard reservoir": {"architecture": "single_cnn", "reservoir": "standard"},
    "no reservoir, keyed by the suffix": {
        "reservoir": "none",
        "memory_key": "suffix",
        "suffix_length": 1,
    },
    "keyed by the suffix": {"memory_key": "suffix", "suffix_length": 5},
    "single CNN, keyed by the suffix": {
        "architecture": "single_cnn",
        "reservoir": "none",
        "memory_key": "suffix",
        "suffix_length": 3,
    },
    "memory of contexts": {"memory_key": "contexts", "memory": 90, "contexts": "1 3 word"},
    "single CNN, memory of contexts": {
        "architecture": "single_cnn",
        "reservoir": "none",
        "memory_key": "contexts",
        "memory": 96,
        "contexts": "2 word 8 4",
        "adaptation": False,
    },
    "reservoir in blocks": {"reservoir_structure": "blocks", "reservoir_blocks": 4},
    "no memory": {"memory": 0, "reservoir": "standard"},
    "no reservoir, no memory": {"reservoir": "none", "memory": 0},
    "the least": {"architecture": "single_cnn", "reservoir": "none", "memory": 0},
    "random codes, plain sine": {
        "codes": "random",
        "sine_decay": 0.0,
        "sine_frequency": 1.5,
        "sine_amplitude": 0.7,
    },
}
"""Changes to :data:`SMALL` that replace or drop each part, alone and in combination."""


def train_small(
    config: DualCNNConfig,
    text: str,
    steps: int,
    tokenizer: Tokenizer | None = None,
    **changes: object,
) -> Checkpoint:
    """Train a model for a few steps, enough to move every weight from where it started.

    Args:
        config: The model; its vocabulary size is replaced by that of the text.
        text: The training text.
        steps: How many steps to train.
        tokenizer: Splits the text; into characters or bytes when absent.
        **changes: Fields of :class:`TrainingConfig` to change.
    """
    tokenizer = tokenizer or make_tokenizer(text)
    tokens = torch.tensor(tokenizer.encode(text))
    model = DualCNN(config.replace(vocab_size=tokenizer.vocab_size))
    model.fit(tokens, tokenizer.token_bytes)
    training = TrainingConfig(steps=steps, batch=8, chunk=64, precision="fp32", average=0.0)
    training = training.replace(**changes)
    DualCNNTrainer(model, training).train(tokens)
    provenance = {"corpus": "builtin:pydoc", "steps": steps, "config": training.to_dict()}
    return Checkpoint(model.eval(), tokenizer, provenance)

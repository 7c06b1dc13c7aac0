"""Continue a run: its model, trained further with new steps or on other text."""

from __future__ import annotations

import dataclasses
from typing import Any

from ..runtime.errors import ConfigError
from .checkpoint import Checkpoint, weights_sha256
from .config.model_config import DualCNNConfig
from .data.streams import Split
from .data.tokenizers import Prepared
from .model.dual_cnn import DualCNN
from .own_parts import Parts, check_same_parts, model_with, own_parts

__all__ = [
    "check_continued",
    "continued_config",
    "continued_model",
    "earlier_record",
    "held_out_record",
]

_DROPOUT = ("dropout", "input_dropout")
_FREE = {"training", "reasons", "seed", "wave_overlap", *_DROPOUT}
"""Settings of the model that may change: its weights do not depend on them."""

_TOKENIZER = ("tokenizer", "bpe_vocab")
"""Settings of training that may not: the model keeps its tokenizer."""

_SLOWER = 10
"""The runs that continue a run begin at its learning rate, divided by this."""


def continued_config(checkpoint: Checkpoint) -> DualCNNConfig:
    """The settings of a run that continues another, before the user's changes.

    The schedule of the learning rate starts anew, and at the full rate it would undo much of what
    the end of the first run has gained.
    """
    config = checkpoint.model.config
    if "continued_from" in checkpoint.training:
        return config
    return config.replace(learning_rate=config.training.learning_rate / _SLOWER)


def check_continued(checkpoint: Checkpoint, config: DualCNNConfig) -> None:
    """Refuse settings that a run which continues another cannot have.

    Raises:
        ConfigError: A setting differs that the weights depend on.
    """
    before, now = checkpoint.model.config.to_dict(), config.to_dict()
    fixed = [
        f"{name} is {before[name]} and cannot become {now[name]}"
        for name in before
        if name not in _FREE and before[name] != now[name]
    ]
    fixed += [
        f"{name} is {before['training'][name]} and cannot become {now['training'][name]}"
        for name in _TOKENIZER
        if before["training"][name] != now["training"][name]
    ]
    if fixed:
        raise ConfigError(
            f"the run was trained as another model: {'; '.join(fixed)}; leave it as it is, or "
            "train a new model"
        )


def continued_model(
    checkpoint: Checkpoint, config: DualCNNConfig, parts: Parts | None = None
) -> DualCNN:
    """Copy the model of a run, with settings that :func:`check_continued` allows.

    Raises:
        UsageError: The model was trained with other parts.
    """
    # The seed stays the one that the fixed parts were drawn with.
    model = model_with(dataclasses.replace(config, seed=checkpoint.model.config.seed), parts)
    check_same_parts("the run to continue", own_parts(checkpoint.model), model)
    model.load_state_dict(checkpoint.model.state_dict())
    return model


def earlier_record(checkpoint: Checkpoint) -> dict[str, Any]:
    """What the new run's record says of the run that it continues."""
    config = checkpoint.model.config
    return {
        **checkpoint.training,
        "weights_sha256": weights_sha256(checkpoint.model),
        "model": {name: getattr(config, name) for name in _DROPOUT},
    }


def held_out_record(
    split: Split, validation: Prepared | None, earlier: dict[str, Any] | None
) -> dict[str, Any]:
    """Describe the held-out text: which it is, and whether an earlier run may have read it.

    Args:
        split: The texts of the run.
        validation: The separate text that is held out, if there is one.
        earlier: The record of the run that is continued.
    """
    record: dict[str, Any] = {"held_out_sha256": split.held_out.sha256()}
    if validation is not None:
        record["validation_sha256"] = validation.sha256
    if earlier is not None:
        # Only the same tokens are sure to have been held out then too.
        same = earlier.get("held_out_sha256") == record["held_out_sha256"]
        if not same or earlier.get("held_out_seen"):
            record["held_out_seen"] = True
    return record

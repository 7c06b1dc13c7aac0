"""The command that repeats a training run, from the checkpoint's record."""

from __future__ import annotations

import shlex
from typing import Any

from ...train.config.presets import PRESETS

__all__ = ["command_of_run"]

_IMPLIED = ("vocab_size", "training", "reasons", "seed")
"""Settings that follow from the corpus or have an option of their own."""


def command_of_run(training: dict[str, Any], model: dict[str, Any]) -> str | None:
    """Reconstruct the command of a training run.

    Args:
        training: The checkpoint's training record.
        model: The model's configuration.

    Returns:
        The command, with every setting that differs from the preset; ``None`` if the record has no
        preset or no corpus, as for a model trained from Python.
    """
    corpus, preset = training.get("corpus"), PRESETS.get(training.get("preset", ""))
    if not isinstance(corpus, str) or preset is None:
        return None
    usual = {**preset.to_dict(), **preset.training.to_dict()}
    actual = {**model, **training.get("config", {})}
    parts = ["rillet", "train", "--corpus", corpus, "--preset", training["preset"]]
    for name, value in actual.items():
        if name not in _IMPLIED and name in usual and value != usual[name]:
            parts += ["--set", f"{name}={value}"]
    seed = training.get("config", {}).get("seed", 0)
    return shlex.join([*parts, "--seed", str(seed), "--out", "RUN"])

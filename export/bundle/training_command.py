"""The command that trains a checkpoint again, from what the checkpoint records."""

from __future__ import annotations

import shlex
from typing import Any

from ...train.config.presets import PRESETS

__all__ = ["training_command"]

_FITTED = ("vocab_size", "training", "reasons", "seed")
"""What the corpus decides, or is said by itself."""


def training_command(training: dict[str, Any], model: dict[str, Any]) -> str | None:
    """Write the command of a run.

    Args:
        training: The checkpoint's record of how it was trained.
        model: Its configuration.

    Returns:
        The command, with every setting that differs from the preset's; ``None`` where the record
        names no preset or no corpus, as that of a model that was trained from Python.
    """
    corpus, preset = training.get("corpus"), PRESETS.get(training.get("preset", ""))
    if not isinstance(corpus, str) or preset is None:
        return None
    usual = {**preset.to_dict(), **preset.training.to_dict()}
    found = {**model, **training.get("config", {})}
    parts = ["rillet", "train", "--corpus", corpus, "--preset", training["preset"]]
    for name, value in found.items():
        if name not in _FITTED and name in usual and value != usual[name]:
            parts += ["--set", f"{name}={value}"]
    seed = training.get("config", {}).get("seed", 0)
    return shlex.join([*parts, "--seed", str(seed), "--out", "RUN"])

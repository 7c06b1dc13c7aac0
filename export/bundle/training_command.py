"""The command that repeats a training run, from the checkpoint's record."""

from __future__ import annotations

import shlex
from typing import Any

from ...train.config.presets import PRESETS
from .json_file import dictionary, words

__all__ = ["command_of_run", "text_options", "thread_options"]

_IMPLIED = ("vocab_size", "training", "reasons", "seed", "wave_overlap")
"""Settings that follow from the corpus, have an option of their own, or change nothing."""


def command_of_run(training: dict[str, Any], model: dict[str, Any], out: str = "RUN") -> str | None:
    """Reconstruct the command of a training run.

    Args:
        training: The checkpoint's training record.
        model: The model's configuration.
        out: The run's folder.

    Returns:
        The command, with every setting that differs from the preset; ``None`` if the record has no
        preset or no corpus, as for a model trained from Python. What ``--preset auto`` chose is
        written as the nearest preset and its changes, since another machine would choose otherwise.
    """
    given = dictionary(training.get("given"))
    corpora = words(given.get("corpus", [training.get("corpus")]))
    preset = training.get("preset")
    if preset not in [*PRESETS, "auto"] or not corpora:
        return None
    actual = {**model, **training.get("config", {})}
    if preset == "auto":
        preset = min(PRESETS, key=lambda name: len(_changes(name, actual)))
    parts = ["rillet", "train", *text_options(corpora, given), "--preset", preset]
    for name, value in _changes(preset, actual).items():
        parts += ["--set", f"{name}={value}"]
    parts += thread_options(given)
    seed = training.get("config", {}).get("seed", 0)
    return shlex.join([*parts, "--seed", str(seed), "--out", out])


def text_options(corpora: list[str], given: dict[str, Any]) -> list[str]:
    """The options for the texts of a run."""
    options = [word for name in corpora for word in ("--corpus", name)]
    return options + _option("validation", given)


def thread_options(given: dict[str, Any]) -> list[str]:
    """The option for the threads of a run, if it was given."""
    return _option("threads", given)


def _option(name: str, given: dict[str, Any]) -> list[str]:
    return [f"--{name}", str(given[name])] if name in given else []


def _changes(preset: str, actual: dict[str, Any]) -> dict[str, Any]:
    """The settings that differ from a preset's."""
    base = PRESETS[preset]
    usual = {**base.to_dict(), **base.training.to_dict()}
    return {
        name: value
        for name, value in actual.items()
        if name not in _IMPLIED and name in usual and value != usual[name]
    }

"""The commands that repeat the making of a bundle, and that try it."""

from __future__ import annotations

import shlex
from typing import Any

from ...runtime.tokenizer import Tokenizer
from ...train.config.presets import PRESETS

__all__ = ["command_of_run", "commands_of_bundle", "generate_command"]

_IMPLIED = ("vocab_size", "training", "reasons", "seed", "wave_overlap")
"""Settings that follow from the corpus, have an option of their own, or change nothing."""


def commands_of_bundle(name: str, manifest: dict[str, Any]) -> list[str]:
    """The commands that made a bundle, as far as its manifest tells them.

    Args:
        name: The bundle's name.
        manifest: The content of ``bundle.json``.
    """
    training = command_of_run(manifest["training"], manifest["model"])
    commands = [] if training is None else [training]
    given = _dictionary(manifest.get("arguments"))
    lowered = manifest["precision"] != "fp32"
    full = "FLOAT32" if lowered else name
    if "export" in given:
        options = _words(given["export"])
        commands.append(shlex.join(["rillet", "export", "RUN", *options, "--out", full]))
    if lowered and "quantize" in given:
        options = _words(given["quantize"])
        commands.append(shlex.join(["rillet", "quantize", full, *options, "--out", name]))
    return commands


def command_of_run(training: dict[str, Any], model: dict[str, Any]) -> str | None:
    """Reconstruct the command of a training run.

    Args:
        training: The checkpoint's training record.
        model: The model's configuration.

    Returns:
        The command, with every setting that differs from the preset; ``None`` if the record has no
        preset or no corpus, as for a model trained from Python. What ``--preset auto`` chose is
        written as the nearest preset and its changes, since another machine would choose otherwise.
    """
    given = _dictionary(training.get("given"))
    corpora = _words(given.get("corpus", [training.get("corpus")]))
    preset = training.get("preset")
    if preset not in [*PRESETS, "auto"] or not corpora:
        return None
    actual = {**model, **training.get("config", {})}
    if preset == "auto":
        preset = min(PRESETS, key=lambda name: len(_changes(name, actual)))
    parts = ["rillet", "train"]
    for name in corpora:
        parts += ["--corpus", name]
    if "validation" in given:
        parts += ["--validation", str(given["validation"])]
    parts += ["--preset", preset]
    for name, value in _changes(preset, actual).items():
        parts += ["--set", f"{name}={value}"]
    if "threads" in given:
        parts += ["--threads", str(given["threads"])]
    seed = training.get("config", {}).get("seed", 0)
    return shlex.join([*parts, "--seed", str(seed), "--out", "RUN"])


def _changes(preset: str, actual: dict[str, Any]) -> dict[str, Any]:
    """The settings that differ from a preset's."""
    base = PRESETS[preset]
    usual = {**base.to_dict(), **base.training.to_dict()}
    return {
        name: value
        for name, value in actual.items()
        if name not in _IMPLIED and name in usual and value != usual[name]
    }


def _words(value: object) -> list[str]:
    """The texts in a list that comes from a file; empty if it is none."""
    return [word for word in value if isinstance(word, str)] if isinstance(value, list) else []


def _dictionary(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def generate_command(bundle: str, tokenizer: Tokenizer, *options: str) -> str:
    """The command that tries a bundle, with a prompt if the model knows its characters."""
    prompt = [] if tokenizer.unknown("Once") else ["Once"]
    return shlex.join(["rillet", "generate", bundle, *prompt, *options])

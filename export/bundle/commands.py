"""The commands that repeat the making of a bundle, and that try it."""

from __future__ import annotations

import shlex
from typing import Any

from ...runtime.tokenizer import Tokenizer
from .continued import commands_of_training, run_name
from .json_file import dictionary, words

__all__ = ["commands_of_bundle", "generate_command"]


def commands_of_bundle(name: str, manifest: dict[str, Any]) -> list[str]:
    """The commands that made a bundle, as far as its manifest tells them.

    Args:
        name: The bundle's name.
        manifest: The content of ``bundle.json``.
    """
    model = manifest["model"]
    if (trained := manifest.get("trained_memory")) is not None:
        model = {**model, "memory": trained}
    commands = commands_of_training(manifest["training"], model)
    given = dictionary(manifest.get("arguments"))
    lowered = manifest["precision"] != "fp32"
    full = "FLOAT32" if lowered else name
    if "export" in given:
        run, options = run_name(max(1, len(commands))), words(given["export"])
        commands.append(shlex.join(["rillet", "export", run, *options, "--out", full]))
    if lowered and "quantize" in given:
        options = words(given["quantize"])
        commands.append(shlex.join(["rillet", "quantize", full, *options, "--out", name]))
    return commands


def generate_command(bundle: str, tokenizer: Tokenizer, *options: str) -> str:
    """The command that tries a bundle, with a prompt if the model knows its characters."""
    prompt = [] if tokenizer.unknown("Once") else ["Once"]
    return shlex.join(["rillet", "generate", bundle, *prompt, *options])

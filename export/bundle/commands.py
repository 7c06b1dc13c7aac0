"""The commands that repeat the making of a bundle, and that try it."""

from __future__ import annotations

import shlex
from typing import Any

from ...runtime.tokenizer import Tokenizer
from .continued import commands_of_export, commands_of_training
from .json_file import dictionary

__all__ = ["commands_of_bundle", "generate_command"]


def commands_of_bundle(name: str, manifest: dict[str, Any]) -> list[str]:
    """The commands that made a bundle, as far as its manifest tells them.

    Args:
        name: The bundle's name.
        manifest: The content of ``bundle.json``.
    """
    model = manifest["model"]
    for bundle in (dictionary(manifest["training"].get("bundle")), manifest):
        if (trained := bundle.get("trained_memory")) is not None:
            model = {**model, "memory": trained}
            break
    commands, run = commands_of_training(manifest["training"], model)
    return commands + commands_of_export(name, run, manifest)


def generate_command(bundle: str, tokenizer: Tokenizer, *options: str) -> str:
    """The command that tries a bundle, with a prompt if the model knows its characters."""
    prompt = [] if tokenizer.unknown("Once") else ["Once"]
    return shlex.join(["rillet", "generate", bundle, *prompt, *options])

"""The sampling defaults that a bundle ships."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...runtime.bundle import BUNDLE_FILE, Bundle
from ...runtime.tokenizer import Tokenizer

__all__ = ["SAMPLING", "generation_config", "sampling_of", "start_token"]

SAMPLING: dict[str, Any] = {"do_sample": True, "temperature": 0.8, "top_k": 0, "top_p": 1.0}
"""Default sampling by Hugging Face's names."""


def generation_config(
    tokenizer: Tokenizer, sampling: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """The content of ``generation_config.json``.

    Args:
        tokenizer: The model's tokenizer.
        sampling: Default sampling that differs from :data:`SAMPLING`, by the same names.
    """
    chosen = {**SAMPLING, **(sampling or {})}
    chosen["do_sample"] = chosen["temperature"] > 0
    return {**chosen, "max_new_tokens": 200, "bos_token_id": start_token(tokenizer)}


def sampling_of(run: Path) -> dict[str, float]:
    """The default sampling that a bundle was exported with, if a model is read from one."""
    if not (run / BUNDLE_FILE).is_file():
        return {}
    defaults = Bundle.open(run).generation_defaults()
    usual = {**SAMPLING, "min_p": 0.0}
    return {
        name: defaults[name]
        for name in ("temperature", "top_p", "min_p")
        if name in defaults and defaults[name] != usual[name]
    }


def start_token(tokenizer: Tokenizer) -> int:
    """The token to begin a text with when there is no prompt: a line break if there is one."""
    return (tokenizer.encode("\n") or tokenizer.encode(" ") or [0])[0]

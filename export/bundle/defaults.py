"""The sampling defaults that a bundle ships."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...runtime.tokenizer import Tokenizer
from ...train.generate import start_token
from .json_file import dictionary

__all__ = ["SAMPLING", "generation_config", "sampling_of"]

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


def sampling_of(training: Mapping[str, Any]) -> dict[str, float]:
    """The default sampling of the bundle that a model was read from, where it is not the usual.

    Args:
        training: The checkpoint's training record.
    """
    defaults = dictionary(dictionary(training.get("bundle")).get("sampling"))
    usual = {**SAMPLING, "min_p": 0.0}
    return {
        name: defaults[name]
        for name in ("temperature", "top_p", "min_p")
        if name in defaults and defaults[name] != usual[name]
    }

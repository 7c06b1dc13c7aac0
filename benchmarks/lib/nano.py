"""The shipped models, and the sizes of ``nano`` that baselines are matched to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rillet.runtime.bundle import Bundle

from .baselines import matched_gpt
from .kv_transformer import Shape

__all__ = ["MODELS", "matched_transformer", "nano_size", "training_summary"]

MODELS = Path(__file__).parents[2] / "models"


def training_summary(preset: str) -> dict[str, Any]:
    """The summary that training wrote for a shipped checkpoint."""
    path = MODELS / "checkpoints" / f"shakespeare-{preset}" / "summary.json"
    summary: dict[str, Any] = json.loads(path.read_text())
    return summary


def nano_size() -> tuple[int, int]:
    """Trained parameters and vocabulary size of the shipped ``nano``."""
    vocab_size = Bundle.open(MODELS / "shakespeare-nano").vocab_size
    return training_summary("nano")["parameters"], vocab_size


def matched_transformer() -> Shape:
    """The shape of the transformer with as many parameters as ``nano``."""
    size, vocab_size = nano_size()
    gpt = matched_gpt(size, vocab_size, 256)
    return Shape(len(gpt.blocks), gpt.heads, gpt.tokens.embedding_dim, vocab_size, gpt.context)

"""Named configurations, by size."""

from __future__ import annotations

from .model_config import DualCNNConfig

__all__ = ["PRESETS"]

PRESETS: dict[str, DualCNNConfig] = {
    "nano": DualCNNConfig().replace(
        wave_blocks=3, hidden=120, dropout=0.15, learning_rate=1.2e-2, steps=2400
    ),
    "micro": DualCNNConfig().replace(
        width=144,
        wave_features=144,
        hidden=320,
        wave_blocks=4,
        dropout=0.35,
        input_dropout=0.05,
        learning_rate=3e-3,
        steps=2400,
    ),
    "small": DualCNNConfig().replace(
        width=208,
        attention_heads=8,
        attention_window=128,
        wave_features=208,
        hidden=512,
        wave_blocks=4,
        dropout=0.5,
        input_dropout=0.15,
        weight_decay=0.3,
        learning_rate=2.5e-3,
        validation=0.005,
        steps=3200,
    ),
    "base": DualCNNConfig().replace(
        width=320,
        attention_heads=8,
        attention_window=128,
        wave_features=320,
        hidden=896,
        wave_blocks=6,
        dropout=0.5,
        input_dropout=0.15,
        learning_rate=2e-3,
        validation=0.005,
        steps=4800,
    ),
}
"""Configurations by name, smallest first; ``nano`` is the default of every command."""

"""Simpler replacements for parts that cannot be set up, used only if the caller allows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .config.model_config import DualCNNConfig

__all__ = ["ADVICE", "Fallback", "fallback_for"]


@dataclass(frozen=True)
class Fallback:
    """A part that failed, and its replacement.

    Attributes:
        part: Name of the part.
        reason: Why it could not be set up.
        instead: What replaces it.
        changes: The settings that select the replacement.
    """

    part: str
    reason: str
    instead: str
    changes: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.part}: {self.reason}; continuing with {self.instead}"


ADVICE = {
    "embedder": "give more text, or set codes=random",
    "reservoir": "change reservoir_size, reservoir_density or spectral_radius, or set "
    "reservoir=standard",
    "read": "change reservoir_size or width",
    "wave_cnn": "change width, hidden or wave_blocks",
    "readout_cnn": "change wave_window or readout_filters, or set architecture=single_cnn",
    "memory": "change memory or key_width, or set memory=0",
    "keys": "change key_width, or set memory=0",
    "model": "change the configuration",
}
"""What to change when a part cannot be set up."""


def fallback_for(part: str, config: DualCNNConfig, reason: str) -> Fallback | None:
    """Find the next simpler replacement for a part that failed; ``None`` if there is none."""
    reads_state = config.memory and config.memory_key == "reservoir"
    without_state = {"memory_key": "suffix"} if reads_state else {}
    instead: tuple[str, dict[str, Any]] | None = None
    if part == "embedder" and config.codes == "fitted":
        instead = "random token codes", {"codes": "random"}
    elif part == "reservoir" and config.attends:
        instead = "a standard reservoir, without attention", {"reservoir": "standard"}
    elif part in ("reservoir", "read") and config.reservoir != "none":
        instead = "no reservoir", {"reservoir": "none", **without_state}
    elif part == "readout_cnn" and config.dual:
        instead = "a single CNN", {"architecture": "single_cnn"}
    elif part in ("memory", "keys") and config.memory:
        instead = "no memory", {"memory": 0}
    if instead is None:
        return None
    return Fallback(part, reason, *instead)

"""Build the parts of a model, each with its own seed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from ..config.model_config import DualCNNConfig
from .attention import AttentiveReservoir
from .context_memory import ContextMemory
from .dropout_noise import Noise, step_seed
from .embedder import SinusoidalEmbedder
from .readout_cnn import ReadoutCNN
from .reservoir import SparseReservoir
from .stream_memory import StreamMemory
from .wave_cnn import WaveCNN

__all__ = ["PARTS", "Part", "build_part", "has_part"]

Part = Callable[[DualCNNConfig, Noise], nn.Module]
"""Builds one part of a model."""


def _reservoir(config: DualCNNConfig, noise: Noise) -> nn.Module:
    kind = AttentiveReservoir if config.attends else SparseReservoir
    return kind.from_config(config)


def _memory(config: DualCNNConfig, noise: Noise) -> nn.Module:
    return ContextMemory(config) if config.memory_key == "contexts" else StreamMemory(config)


PARTS: dict[str, Part] = {
    "embedder": lambda config, noise: SinusoidalEmbedder(
        config.vocab_size, config.code_width, config.width
    ),
    "reservoir": _reservoir,
    "read": lambda config, noise: nn.Linear(config.reservoir_size, config.width),
    "wave_cnn": WaveCNN,
    "readout_cnn": ReadoutCNN,
    "memory": _memory,
}
"""Builders of the parts by attribute name, in order of construction."""


def has_part(name: str, config: DualCNNConfig) -> bool:
    """Whether a model of this configuration has a part."""
    optional = {
        "reservoir": config.reservoir != "none",
        "read": config.reservoir == "standard",
        "readout_cnn": config.dual,
        "memory": config.memory > 0,
    }
    return optional.get(name, True)


def build_part(name: str, config: DualCNNConfig, noise: Noise) -> nn.Module | None:
    """Build one part, or ``None`` if the configuration leaves it out.

    Its initial weights depend on its name and the seed alone.
    """
    if not has_part(name, config):
        return None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(step_seed(config.seed, list(PARTS).index(name)))
        return PARTS[name](config, noise)

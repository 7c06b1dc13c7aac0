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

__all__ = ["PARTS", "Part", "build_part"]

Part = Callable[[DualCNNConfig, Noise], "nn.Module | None"]
"""Builds one part of a model, or returns ``None`` if the configuration leaves it out."""


def _embedder(config: DualCNNConfig, noise: Noise) -> nn.Module:
    return SinusoidalEmbedder(config.vocab_size, config.code_width, config.width)


def _reservoir(config: DualCNNConfig, noise: Noise) -> nn.Module | None:
    if config.reservoir == "none":
        return None
    kind = AttentiveReservoir if config.attends else SparseReservoir
    return kind.from_config(config)


def _read(config: DualCNNConfig, noise: Noise) -> nn.Module | None:
    if config.reservoir != "standard":
        return None
    return nn.Linear(config.reservoir_size, config.width)


def _wave_cnn(config: DualCNNConfig, noise: Noise) -> nn.Module:
    return WaveCNN(config, noise)


def _readout_cnn(config: DualCNNConfig, noise: Noise) -> nn.Module | None:
    return ReadoutCNN(config, noise) if config.dual else None


def _memory(config: DualCNNConfig, noise: Noise) -> nn.Module | None:
    if not config.memory:
        return None
    return ContextMemory(config) if config.memory_key == "contexts" else StreamMemory(config)


PARTS: dict[str, Part] = {
    "embedder": _embedder,
    "reservoir": _reservoir,
    "read": _read,
    "wave_cnn": _wave_cnn,
    "readout_cnn": _readout_cnn,
    "memory": _memory,
}
"""Builders of the parts by attribute name, in order of construction."""


def build_part(name: str, config: DualCNNConfig, noise: Noise) -> nn.Module | None:
    """Build one part; its initial weights depend on its name and the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(step_seed(config.seed, list(PARTS).index(name)))
        return PARTS[name](config, noise)

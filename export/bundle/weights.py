"""The bundle's weights as plain tensors, for engines that run no graph."""

from __future__ import annotations

import safetensors.torch
import torch
from torch import Tensor

from ...runtime.bundle import WEIGHTS_FORMAT
from ...train.config.model_config import DualCNNConfig
from ...train.model.adaptation import BOUNDS, RATES
from ...train.model.dual_cnn import DualCNN

__all__ = ["weights_bytes"]

_VERSION = (1, 0)


def weights_bytes(model: DualCNN) -> bytes:
    """The content of ``weights.safetensors``.

    Tensors have the names and shapes of the checkpoint. A few more hold what a checkpoint keeps in
    its configuration, so that a reader needs nothing but tensors: the format's version, the
    parameters of the reservoir's sine, the size of the memory, and the rates and bounds of its
    online weights.
    """
    tensors = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    return bytes(safetensors.torch.save(tensors | _settings(model.config), _metadata(model.config)))


def _settings(config: DualCNNConfig) -> dict[str, Tensor]:
    settings = {"format": torch.tensor(_VERSION)}
    if config.reservoir != "none":
        sine = (config.sine_amplitude, config.sine_decay, config.sine_frequency)
        settings["reservoir.sine"] = torch.tensor(sine, dtype=torch.float32)
    if config.memory:
        size = config.context_slots if config.memory_key == "contexts" else config.memory
        settings["memory.capacity"] = torch.tensor([size])
    if config.adapts:
        settings["memory.adaptation"] = torch.tensor([*RATES, *BOUNDS])
    return settings


def _metadata(config: DualCNNConfig) -> dict[str, str]:
    return WEIGHTS_FORMAT.metadata({"model": config.to_dict()})

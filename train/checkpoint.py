"""Checkpoints: one safetensors file with everything that an export needs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch

from ..runtime.errors import BundleError, RilletError, brief
from ..runtime.files import write_atomic
from ..runtime.tokenizer import Tokenizer
from .config.model_config import DualCNNConfig
from .model.dual_cnn import DualCNN

__all__ = ["CHECKPOINT_FILE", "Checkpoint", "load_checkpoint", "save_checkpoint"]

CHECKPOINT_FILE = "checkpoint.safetensors"
_FORMAT = "rillet-checkpoint"
_VERSION = "1.0"


@dataclass(frozen=True)
class Checkpoint:
    """A trained model and where it came from.

    Attributes:
        model: The model, in evaluation mode.
        tokenizer: Its tokenizer.
        training: How it was trained and what was measured: plain JSON values.
    """

    model: DualCNN
    tokenizer: Tokenizer
    training: dict[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint so that a crash leaves the old one or the new.

    Args:
        folder: The run's folder; it must exist.
        checkpoint: What to write.

    Returns:
        The file written.
    """
    header = {
        "format": _FORMAT,
        "format_version": _VERSION,
        "model": checkpoint.model.config.to_dict(),
        "tokenizer": checkpoint.tokenizer.source,
        "training": checkpoint.training,
    }
    # One metadata entry: safetensors writes several in an arbitrary order.
    metadata = {"rillet": json.dumps(header, ensure_ascii=False)}
    tensors = {
        name: tensor.detach().contiguous() for name, tensor in checkpoint.model.state_dict().items()
    }
    path = folder / CHECKPOINT_FILE
    write_atomic(path, safetensors.torch.save(tensors, metadata))
    return path


def load_checkpoint(run: Path) -> Checkpoint:
    """Read a checkpoint.

    Args:
        run: The folder that ``rillet train`` wrote, or the checkpoint file in it.

    Raises:
        BundleError: There is no checkpoint, or it is damaged or of a newer format.
    """
    path = run / CHECKPOINT_FILE if run.is_dir() else run
    if not path.is_file():
        raise BundleError(
            f"{run} holds no checkpoint ({CHECKPOINT_FILE}); give the folder that "
            "`rillet train` wrote"
        )
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("rillet", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, ValueError, OSError, RecursionError) as error:
        raise BundleError(f"{path} is damaged or is no checkpoint ({error})") from error
    if not isinstance(header, dict) or header.get("format") != _FORMAT:
        raise BundleError(f"{path} is not a rillet checkpoint; give one that `rillet train` wrote")
    version = str(header.get("format_version"))
    if version.split(".")[0] != _VERSION.split(".")[0]:
        raise BundleError(
            f"{path} has checkpoint version {version}, and this rillet reads {_VERSION}; "
            "install a newer rillet"
        )
    try:
        tokenizer = Tokenizer(header["tokenizer"], str(path))
        config = DualCNNConfig.from_dict(header["model"])
        _check_sizes(config, tensors)
        model = DualCNN(config)
        _check_tensors(path, model, tensors)
        model.load_state_dict(tensors)
    except RilletError as error:
        raise BundleError(f"{path} is damaged: {brief(error)}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{path} is damaged: its header lacks {error}") from error
    except (ValueError, RuntimeError, OverflowError) as error:
        raise BundleError(f"{path} is damaged ({brief(error)})") from error
    training = header.get("training")
    return Checkpoint(model.eval(), tokenizer, training if isinstance(training, dict) else {})


_SIZES = {
    "vocab_size": ("embedder.codes", 0),
    "code_width": ("embedder.codes", 1),
    "width": ("embedder.embedding.weight", 1),
    "reservoir_size": ("reservoir.recurrent", 0),
    "attention_heads": ("reservoir.distance_bias", 0),
    "attention_window": ("reservoir.distance_bias", 1),
    "wave_kernel": ("wave_cnn.blocks.0.taps", 0),
    "hidden": ("wave_cnn.blocks.0.gated.down.weight", 1),
    "wave_features": ("wave_cnn.emit.weight", 0),
    "readout_filters": ("readout_cnn.filters", 1),
    "wave_window": ("readout_cnn.filters", 2),
    "key_width": ("memory.key.projection", 1),
    "gate_hidden": ("memory.gate.hidden.weight", 0),
}
"""Where each size of a model can be read off a tensor: its name, and the axis."""


def _check_sizes(config: DualCNNConfig, tensors: dict[str, Any]) -> None:
    """Refuse sizes that the tensors do not have, before anything of such a size is made."""
    used = {
        "reservoir": config.reservoir != "none",
        "distance_bias": config.attends,
        "readout_cnn": config.dual,
        "projection": config.memory > 0 and config.memory_key == "reservoir",
        "gate": config.memory > 0,
    }
    depths = ("wave_blocks", "readout_blocks") if config.dual else ("wave_blocks",)
    known = {name: (len(tensors), "the number of tensors") for name in depths}
    for name, (tensor, axis) in _SIZES.items():
        if all(used.get(part, True) for part in tensor.split(".")):
            shape = tensors[tensor].shape
            known[name] = (shape[axis] if axis < len(shape) else 0, f"axis {axis} of {tensor}")
    for name, (size, where) in known.items():
        if getattr(config, name) > size:
            raise BundleError(
                f"its configuration has {name} = {getattr(config, name)}, and {where} is {size}"
            )


def _check_tensors(path: Path, model: DualCNN, tensors: dict[str, Any]) -> None:
    wanted = model.state_dict()
    differing = sorted(set(wanted) ^ set(tensors))
    differing += [
        name
        for name in wanted
        if name in tensors
        and (tensors[name].shape != wanted[name].shape or tensors[name].dtype != wanted[name].dtype)
    ]
    if differing:
        raise BundleError(f"tensors that do not fit the configuration: {', '.join(differing[:5])}")
    bad = [
        name
        for name, tensor in tensors.items()
        if tensor.is_floating_point() and not bool(tensor.isfinite().all())
    ]
    if bad:
        raise BundleError(f"tensors with values that are not finite: {', '.join(bad[:5])}")

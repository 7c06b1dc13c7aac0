"""Checkpoints: one safetensors file with everything that an export needs."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from ..runtime.bundle import BUNDLE_FILE, WEIGHTS_FILE
from ..runtime.errors import BundleError, RilletError, brief
from ..runtime.files import as_path, write_atomic
from ..runtime.tensor_file import TensorFormat
from ..runtime.text_sample import TextSample
from ..runtime.tokenizer import Tokenizer
from .bundle_weights import read_bundle
from .config.model_config import DualCNNConfig
from .model.dual_cnn import DualCNN
from .own_parts import Parts, check_same_parts, model_with, own_parts

__all__ = [
    "CHECKPOINT_FILE",
    "CHECKPOINT_FORMAT",
    "Checkpoint",
    "load_checkpoint",
    "save_checkpoint",
    "weights_sha256",
]

CHECKPOINT_FILE = "checkpoint.safetensors"
CHECKPOINT_FORMAT = TensorFormat(
    "rillet-checkpoint", "1.0", "rillet checkpoint", "pass a folder that `rillet train` wrote"
)


@dataclass(frozen=True)
class Checkpoint:
    """A trained model and its provenance.

    Attributes:
        model: The model, in evaluation mode.
        tokenizer: Its tokenizer.
        training: How it was trained and what was measured, as plain JSON values.
        text_sample: A piece of the run's text, to check on what is made from the model.
    """

    model: DualCNN
    tokenizer: Tokenizer
    training: dict[str, Any]
    text_sample: TextSample | None = None


def weights_sha256(model: DualCNN) -> str:
    """SHA-256 over every tensor of the model, sorted by name: name, type, shape and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        array = tensor.detach().contiguous().cpu().numpy()
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def save_checkpoint(folder: str | Path, checkpoint: Checkpoint, half: bool = False) -> Path:
    """Write a checkpoint atomically: a crash leaves either the old file or the new one.

    Args:
        folder: The run's folder; it must exist.
        checkpoint: The checkpoint to write.
        half: Round matrices to 16 bits, which halves the file. It is another model then: export
            what is loaded from the file.

    Returns:
        Path of the file.
    """
    header = {
        "model": checkpoint.model.config.to_dict(),
        "tokenizer": checkpoint.tokenizer.source,
        "training": checkpoint.training,
    }
    if parts := own_parts(checkpoint.model):
        header["parts"] = parts
    if checkpoint.text_sample is not None:
        header["text_sample"] = checkpoint.text_sample.to_dict()
    tensors = {
        name: tensor.detach().contiguous() for name, tensor in checkpoint.model.state_dict().items()
    }
    if half:
        tensors = {
            name: tensor.half() if tensor.dtype == torch.float32 and tensor.ndim > 1 else tensor
            for name, tensor in tensors.items()
        }
    path = as_path(folder) / CHECKPOINT_FILE
    write_atomic(path, safetensors.torch.save(tensors, CHECKPOINT_FORMAT.metadata(header)))
    return path


def load_checkpoint(run: str | Path, parts: Parts | None = None) -> Checkpoint:
    """Read a checkpoint, or the model in a bundle.

    Args:
        run: The folder that ``rillet train`` wrote, or the checkpoint file in it; or a bundle with
            weights (see :mod:`.bundle_weights`).
        parts: The parts of your own that the model was trained with.

    Raises:
        BundleError: The checkpoint is missing, damaged, or of an incompatible version.
        UsageError: The model was trained with other parts.
    """
    run = as_path(run)
    path = run / CHECKPOINT_FILE if run.is_dir() else run
    if path.is_file():
        header, tensors = CHECKPOINT_FORMAT.read(path, "pt")
    elif (run / BUNDLE_FILE).is_file():
        path = run / WEIGHTS_FILE
        header, tensors = read_bundle(run)
    else:
        raise BundleError(
            f"{run} holds no checkpoint ({CHECKPOINT_FILE}); pass the folder that "
            "`rillet train` wrote, or a bundle"
        )
    tensors = {  # a checkpoint that was saved by half
        name: tensor.float() if tensor.dtype == torch.float16 else tensor
        for name, tensor in tensors.items()
    }
    with _damage(path):
        tokenizer = Tokenizer(header["tokenizer"], str(path))
        config = DualCNNConfig.from_dict(header["model"])
        own = dict(header.get("parts", {}))
        _check_sizes(config, tensors, own)
        kept = header.get("text_sample")
        sample = None if kept is None else TextSample.from_dict(kept, tokenizer.vocab_size)
    # The user's own code may raise anything, which says nothing of the file.
    with contextlib.nullcontext() if parts else _damage(path):
        model = model_with(config, parts)
    check_same_parts(path, own, model)
    with _damage(path):
        _check_tensors(model, tensors)
        model.load_state_dict(tensors)
    training = header.get("training")
    if not isinstance(training, dict):
        training = {}
    return Checkpoint(model.eval(), tokenizer, training, sample)


@contextlib.contextmanager
def _damage(path: Path) -> Iterator[None]:
    try:
        yield
    except RilletError as error:
        raise BundleError(f"{path} is damaged: {brief(error)}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{path} is damaged: its header lacks {error}") from error
    except (ValueError, RuntimeError, OverflowError) as error:
        raise BundleError(f"{path} is damaged ({brief(error)})") from error


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
"""The tensor and axis that show each size of a model."""


def _check_sizes(config: DualCNNConfig, tensors: dict[str, Any], own: dict[str, str]) -> None:
    """Reject sizes larger than the stored tensors, before allocating anything of that size."""
    used = {
        "reservoir": config.reservoir != "none",
        "distance_bias": config.attends,
        "readout_cnn": config.dual,
        "projection": config.memory > 0 and config.memory_key == "reservoir",
        "gate": config.memory > 0 and config.memory_key != "contexts",
    } | dict.fromkeys(own, False)
    depths = ("wave_blocks", "readout_blocks") if config.dual else ("wave_blocks",)
    limits = {name: (len(tensors), "the number of tensors") for name in depths}
    for name, (tensor, axis) in _SIZES.items():
        if all(used.get(part, True) for part in tensor.split(".")):
            shape = tensors[tensor].shape
            limits[name] = (shape[axis] if axis < len(shape) else 0, f"axis {axis} of {tensor}")
    for name, (size, where) in limits.items():
        if getattr(config, name) > size:
            raise BundleError(
                f"its configuration has {name} = {getattr(config, name)}, but {where} is {size}"
            )


def _check_tensors(model: DualCNN, tensors: dict[str, Any]) -> None:
    expected = model.state_dict()
    differing = sorted(set(expected) ^ set(tensors))
    differing += [
        name
        for name, tensor in expected.items()
        if name in tensors
        and (tensors[name].shape != tensor.shape or tensors[name].dtype != tensor.dtype)
    ]
    if differing:
        raise BundleError(
            f"these tensors do not match the configuration: {', '.join(differing[:5])}"
        )
    bad = [
        name
        for name, tensor in tensors.items()
        if tensor.is_floating_point() and not bool(tensor.isfinite().all())
    ]
    if bad:
        raise BundleError(f"these tensors hold values that are not finite: {', '.join(bad[:5])}")

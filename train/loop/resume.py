"""A training run between two steps: everything that the next step depends on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ...runtime.errors import BundleError
from ...runtime.files import write_atomic
from ..model.dual_cnn import DualCNN
from ..model.state import State
from .optimizer import WeightAverage

__all__ = ["STATE_FILE", "RunState", "load_run_state", "save_run_state"]

STATE_FILE = "training.safetensors"
_FORMAT, _VERSION = "rillet-training", "1.0"


@dataclass
class RunState:
    """Where a run stands.

    Attributes:
        step: Steps done.
        best_step: Step of the best look at the validation text; 0 before any.
        best_loss: Its loss.
        seconds: Time spent so far.
        streams: The state of every stream of the batch.
        best: The averaged weights of the best look, by name.
    """

    step: int = 0
    best_step: int = 0
    best_loss: float = float("inf")
    seconds: float = 0.0
    streams: State | None = None
    best: dict[str, Tensor] | None = None


def save_run_state(
    folder: Path,
    run: RunState,
    model: DualCNN,
    average: WeightAverage[DualCNN],
    optimizer: torch.optim.Optimizer,
    about: dict[str, Any],
) -> None:
    """Write a run's state so that a crash leaves the old one or the new.

    Args:
        folder: The run's folder.
        run: Where it stands.
        model: The model, with the weights of the last step.
        average: Their average.
        optimizer: Its moments.
        about: What must be the same when the run is resumed, as plain JSON values.
    """
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    averaged = dict(average.model.named_parameters())
    tensors |= {f"average.{name}": parameter.data for name, parameter in averaged.items()}
    for name, parameter in model.named_parameters():
        for moment, value in optimizer.state[parameter].items():
            tensors[f"optimizer.{name}.{moment}"] = value
    assert run.streams is not None
    tensors |= {f"stream.{name}": tensor for name, tensor in run.streams.items()}
    tensors |= {f"best.{name}": tensor for name, tensor in (run.best or {}).items()}
    header = {
        "format": _FORMAT,
        "format_version": _VERSION,
        "step": run.step,
        "best_step": run.best_step,
        "best_loss": run.best_loss if run.best_step else None,
        "seconds": run.seconds,
        "about": about,
    }
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    data = safetensors.torch.save(plain, {"rillet": json.dumps(header)})
    write_atomic(folder / STATE_FILE, data)


def load_run_state(
    folder: Path,
    model: DualCNN,
    average: WeightAverage[DualCNN],
    optimizer: torch.optim.Optimizer,
    about: dict[str, Any],
) -> RunState:
    """Read a run's state into a model, its average and its optimiser.

    Raises:
        BundleError: There is no state, it is damaged, or it is of another run: the message
            names what differs.
    """
    path = folder / STATE_FILE
    if not path.is_file():
        raise BundleError(
            f"{folder} holds no run to resume ({STATE_FILE}); start one without --resume, in "
            "another folder or with --overwrite if there is a checkpoint already"
        )
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("rillet", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if header["format"] != _FORMAT:
            raise ValueError("another format")
        if str(header["format_version"]).split(".")[0] != _VERSION.split(".")[0]:
            raise BundleError(
                f"{path} has version {header['format_version']}, and this rillet reads {_VERSION}; "
                "install a newer rillet"
            )
        _same_run(path, header["about"], about)
        run = _fill(header, tensors, model, average, optimizer)
    except (
        safetensors.SafetensorError, ValueError, KeyError, TypeError, RuntimeError, OSError,
        RecursionError, AttributeError, OverflowError,
    ) as error:  # fmt: skip
        raise BundleError(
            f"{path} is damaged or is no training state ({error}); train anew with --overwrite"
        ) from error
    return run


def _same_run(path: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    differing = sorted(key for key in set(found) | set(wanted) if found.get(key) != wanted.get(key))
    if differing:
        shown = "; ".join(f"{key} was {found.get(key)!r} and is {wanted.get(key)!r}"[:200]
                          for key in differing[:3])  # fmt: skip
        raise BundleError(
            f"{path} is the state of another run: {shown}; resume with the same corpus and settings"
        )


def _fill(
    header: dict[str, Any],
    tensors: dict[str, Tensor],
    model: DualCNN,
    average: WeightAverage[DualCNN],
    optimizer: torch.optim.Optimizer,
) -> RunState:
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = tensor
    model.load_state_dict(parts["model"])
    average.model.load_state_dict(parts["model"])
    with torch.no_grad():
        for name, parameter in average.model.named_parameters():
            parameter.copy_(parts["average"][name])
    moments = parts.get("optimizer", {})
    for name, parameter in model.named_parameters():
        own = {moment: moments[f"{name}.{moment}"] for moment in ("step", "exp_avg", "exp_avg_sq")}
        optimizer.state[parameter] = {
            moment: value.to(parameter.device) for moment, value in own.items()
        }
    best = int(header["best_step"])
    return RunState(
        step=int(header["step"]),
        best_step=best,
        best_loss=float(header["best_loss"]) if best else float("inf"),
        seconds=float(header["seconds"]),
        streams=parts["stream"],
        best=parts.get("best"),
    )

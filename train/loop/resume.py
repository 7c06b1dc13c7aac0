"""The state of a training run between two steps: everything that the next step depends on."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from ...runtime.errors import BundleError, ConfigError, brief
from ...runtime.files import write_atomic
from ...runtime.tensor_file import TensorFormat
from ..config.model_config import DualCNNConfig
from ..model.dual_cnn import DualCNN
from ..model.state import State
from .optimizer import WeightAverage

__all__ = [
    "STATE_FILE",
    "STATE_FORMAT",
    "RunState",
    "load_run_state",
    "run_config",
    "save_run_state",
]

STATE_FILE = "training.safetensors"
STATE_FORMAT = TensorFormat(
    "rillet-training", "1.0", "training state", "restart training with --overwrite"
)


_HARMLESS = {
    "reasons",
    "wave_overlap",
    "report_every",
    "checkpoint_every",
    "held_out_tokens",
    "held_out_sample",
}
"""Settings on which no weight depends; they may change when a run is resumed."""


@dataclass
class RunState:
    """Progress of a training run.

    Attributes:
        step: Steps done.
        best_step: Step of the best validation; 0 before the first.
        best_loss: Its validation loss.
        seconds: Time spent so far.
        streams: State of every stream in the batch.
        best: Averaged weights of the best validation, by name.
        steps: Steps planned under a time limit; 0 without one.
        most: Steps that the time limit never exceeds.
        corrections: After which step how many were planned in all.
    """

    step: int = 0
    best_step: int = 0
    best_loss: float = float("inf")
    seconds: float = 0.0
    streams: State | None = None
    best: dict[str, Tensor] | None = None
    steps: int = 0
    most: int = 0
    corrections: list[tuple[int, int]] = field(default_factory=list)


def save_run_state(
    folder: Path,
    run: RunState,
    model: DualCNN,
    average: WeightAverage[DualCNN],
    optimizer: torch.optim.Optimizer,
    about: dict[str, Any],
) -> None:
    """Write the state of a run atomically: a crash leaves either the old file or the new one.

    Args:
        folder: The run's folder.
        run: Its progress.
        model: The model, with the weights of the last step.
        average: The moving average of the weights.
        optimizer: The optimizer, with its moments.
        about: Whatever must be identical when the run is resumed, as plain JSON values: the
            configuration under ``config``, and hashes of the texts by their names.
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
        "step": run.step,
        "best_step": run.best_step,
        "best_loss": run.best_loss if run.best_step else None,
        "seconds": run.seconds,
        "about": about,
    }
    if run.steps:
        header["limit"] = {
            "steps": run.steps,
            "most": run.most,
            "corrections": run.corrections,
        }
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    data = safetensors.torch.save(on_cpu, STATE_FORMAT.metadata(header))
    write_atomic(folder / STATE_FILE, data)


def run_config(folder: Path) -> DualCNNConfig:
    """The configuration that the run in a folder began with.

    Raises:
        BundleError: There is no run, or its state is damaged.
    """
    path = _state_file(folder)
    header, _ = STATE_FORMAT.read(path, "pt")
    try:
        return DualCNNConfig.from_dict(header["about"]["config"])
    except (KeyError, TypeError, AttributeError, ConfigError) as error:
        raise _damaged(path, error) from error


def load_run_state(
    folder: Path,
    model: DualCNN,
    average: WeightAverage[DualCNN],
    optimizer: torch.optim.Optimizer,
    about: dict[str, Any],
) -> RunState:
    """Load the state of a run into a model, its weight average and its optimizer.

    Raises:
        BundleError: The state is missing, damaged, or belongs to a run with other settings;
            the message names what differs.
    """
    path = _state_file(folder)
    header, tensors = STATE_FORMAT.read(path, "pt")
    try:
        _check_same_run(path, header["about"], about)
        return _fill(header, tensors, model, average, optimizer)
    except (
        ValueError,
        KeyError,
        TypeError,
        RuntimeError,
        AttributeError,
        OverflowError,
    ) as error:
        raise _damaged(path, error) from error


def _state_file(folder: Path) -> Path:
    path = folder / STATE_FILE
    if not path.is_file():
        raise BundleError(
            f"{folder} holds no run to resume ({STATE_FILE}); drop --resume to start one, with "
            "another --out or --overwrite if the folder already holds a checkpoint"
        )
    return path


def _damaged(path: Path, error: Exception) -> BundleError:
    return BundleError(f"{path} is damaged ({brief(error)}); restart training with --overwrite")


def _check_same_run(path: Path, stored: dict[str, Any], current: dict[str, Any]) -> None:
    """Compare what both records have: another version of rillet may have other settings."""
    before, now = _entries(stored), _entries(current)
    differing = [
        _difference(key[1], before[key], now[key])
        for key in before
        if key in now and before[key] != now[key] and key[1] not in _HARMLESS
    ]
    if differing:
        # Model and training each have a seed, which differ alike: one line says both.
        raise BundleError(
            f"{path} belongs to another run: {'; '.join(dict.fromkeys(differing))}; resume with "
            "the same texts and settings, or train further in a new folder with --continue-from"
        )


def _entries(about: dict[str, Any]) -> dict[tuple[str, str], Any]:
    """What a record says: one entry for each setting and text, by owner and name."""
    config = about["config"]
    texts = {name: value for name, value in about.items() if name not in ("config", "parts")}
    model = {name: value for name, value in config.items() if name != "training"}
    if "parts" in about:
        model["parts"] = about["parts"]
    owners = {
        "texts": {f"the {name}": value for name, value in texts.items()},
        "model": model,
        "training": config["training"],
    }
    return {(owner, name): value for owner, of in owners.items() for name, value in of.items()}


def _difference(name: str, before: object, now: object) -> str:
    if name.startswith("the "):
        old, new = (str(value or "none")[:12] for value in (before, now))
        return f"{name} differs (SHA-256 {old} before, {new} now)"
    return f"{name} was {str(before)[:80]} and is now {str(now)[:80]}"


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
        if f"{name}.step" not in moments:
            continue  # a frozen parameter, or one that no loss reaches
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
        streams=_streams(parts["stream"], model),
        best=parts.get("best"),
        **_limit(header.get("limit", {})),
    )


def _streams(stored: State, model: DualCNN) -> State:
    """Complete the streams: what an earlier version did not keep begins at zeros."""
    streams = model.zero_state(len(stored["position"]))
    for name, value in streams.items():
        value.copy_(stored.get(name, value).view_as(value))
    return streams


def _limit(stored: dict[str, Any]) -> dict[str, Any]:
    """What a time limit had planned."""
    if not stored:
        return {}
    pairs = [(int(done), int(steps)) for done, steps in stored["corrections"]]
    return {"steps": int(stored["steps"]), "most": int(stored["most"]), "corrections": pairs}

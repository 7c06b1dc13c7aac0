"""Training a baseline until validation stops improving, in a run that can be continued."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from rillet.runtime.errors import RilletError
from rillet.runtime.files import make_folder, write_atomic
from rillet.runtime.tensor_file import TensorFormat
from rillet.train.config.training_config import TrainingConfig
from rillet.train.data.streams import Text

from .baseline_training import BaselineTrainer
from .baselines import Baseline
from .plateau import PROGRESS, Plateau, closing

__all__ = ["ConvergingRun", "pieces_loss"]

_FORMAT = TensorFormat("baseline-run", "1.0", "baseline's run", "remove it to start again")
_FILE = "run.safetensors"
_OPEN = "before-closing.safetensors"


class ConvergingRun:
    """A baseline's training: a constant rate that falls where validation stops improving.

    Where the rate falls, training goes on from the best averaged weights. A run in a folder goes
    on where it was saved last, as if nothing had interrupted it. One that was closing towards a
    limit, and is given a later one, goes on from before that: at its full rate, it could not catch
    up with what it reached at a low one, and would seem to have stopped improving.

    Args:
        model: The baseline; trained in place.
        text: The text to train on.
        validation: Pieces of text to measure progress on, ``[pieces, length]``.
        config: How to train; the rate is the first one.
        folder: Folder for the state of the run; ``None`` keeps none.
        plateau: The rule.

    Attributes:
        steps: Steps done.
        cpu: CPU seconds that they took, with their validations.
        wall: Seconds by the clock that they took.
        history: Step, validation loss and scale of the rate, of each validation.
        plateau: The rule's state.
        dtype: What matrix products are computed in, if not in float32.

    Raises:
        BundleError: The folder's run is damaged.
        RilletError: The folder's run has other settings, or a model of another shape.
    """

    def __init__(
        self,
        model: Baseline,
        text: Text,
        validation: Tensor,
        config: TrainingConfig,
        folder: Path | None = None,
        plateau: Plateau | None = None,
    ) -> None:
        self.trainer = BaselineTrainer(model, text, config)
        self.model, self.validation, self.config = model, validation, config
        self.dtype = self.trainer.dtype
        self.folder, self.plateau = folder, plateau or Plateau()
        self.steps, self.cpu, self.wall = 0, 0.0, 0.0
        self.history: list[tuple[int, float, float]] = []
        self._best: dict[str, Tensor] = {}
        self._saved = time.monotonic()
        self._before_closing: Path | None = None
        if folder is not None and (folder / _FILE).is_file():
            self._load(folder / _FILE)
            self._before_closing = folder / _OPEN if (folder / _OPEN).is_file() else None

    def train(
        self,
        until: int | None = None,
        limit: float | None = None,
        wall_limit: float | None = None,
        notify: Callable[[str], object] = lambda line: None,
    ) -> str:
        """Train on.

        Args:
            until: Stop after this step.
            limit: CPU seconds of the whole run; the rate falls towards their end.
            wall_limit: The same in seconds by the clock.
            notify: Called with a line after each validation.

        Returns:
            Why training stopped: ``validation stopped improving``, ``time limit`` or ``steps``.
        """
        config, plateau = self.config, self.plateau

        def used(cpu: float, wall: float) -> float:
            return max(cpu / limit if limit else 0, wall / wall_limit if wall_limit else 0)

        if self._before_closing is not None:
            header, _ = _FORMAT.read(self._before_closing, "pt")
            if closing(used(header["cpu"], header["wall"])) == 1:
                self._load(self._before_closing)
                self.save()
                self._before_closing.unlink()
                self._before_closing = None
        while not plateau.converged:
            if until is not None and self.steps >= until:
                return self._stop("steps")
            share = used(self.cpu, self.wall)
            if share >= 1:
                return self._stop("time limit")
            start, begun = time.process_time(), time.monotonic()
            warm = min(1.0, (self.steps + 1) / max(1, config.warmup))
            close = closing(share)
            if close < 1 and self.folder is not None and self._before_closing is None:
                self._before_closing = self.folder / _OPEN
                self._write(self._before_closing)
            self.trainer.step(self.steps, config.learning_rate * warm * plateau.scale * close)
            self.steps += 1
            if self.steps % config.validate_every == 0:
                self._validate(closes=close < 1)
                notify(
                    f"step {self.steps}, {self.cpu / 60:.1f} CPU min: {self.history[-1][1]:.4f} "
                    f"(best {plateau.best:.4f}, rate {plateau.scale * close:.3g})"
                )
            self.cpu += time.process_time() - start
            self.wall += time.monotonic() - begun
            if time.monotonic() - self._saved > 60:
                self.save()
        return self._stop("validation stopped improving")

    def measure(self) -> float:
        """The validation loss of the averaged weights now."""
        return pieces_loss(self.trainer.average.model, self.validation)

    def best(self) -> Baseline:
        """The model with the averaged weights of the best validation, in evaluation mode."""
        if not self._best:
            self._validate()
        _fill(self.trainer.average.model, self._best)
        return self.trainer.average.model.eval()

    def save(self) -> None:
        """Write the run to its folder, atomically."""
        self._saved = time.monotonic()
        if self.folder is not None:
            self._write(self.folder / _FILE)

    def _write(self, path: Path) -> None:
        tensors = {"random": torch.get_rng_state()}
        for name, parameter in self.model.named_parameters():
            tensors[f"model.{name}"] = parameter.data
            for moment, value in self.trainer.optimizer.state[parameter].items():
                tensors[f"optimizer.{moment}.{name}"] = value
        for name, parameter in self.trainer.average.model.named_parameters():
            tensors[f"average.{name}"] = parameter.data
        tensors |= {f"best.{name}": value for name, value in self._best.items()}
        if self.trainer.state is not None:
            tensors["state"] = self.trainer.state.detach()
        header = {
            "config": self.config.to_dict(),
            "steps": self.steps,
            "cpu": self.cpu,
            "wall": self.wall,
            "history": self.history,
            "plateau": {name: str(value) for name, value in asdict(self.plateau).items()},
        }
        whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
        make_folder(path.parent)
        write_atomic(path, safetensors.torch.save(whole, _FORMAT.metadata(header)))

    def _load(self, path: Path) -> None:
        header, tensors = _FORMAT.read(path, "pt")
        parts: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            parts.setdefault(part, {})[rest] = tensor
        same_shape = _shapes(parts["model"].items()) == _shapes(self.model.named_parameters())
        if header["config"] != self.config.to_dict() or not same_shape:
            raise RilletError(f"{path} has other settings; remove it to start again")
        _fill(self.model, parts["model"])
        _fill(self.trainer.average.model, parts["average"])
        self._best = parts.get("best", {})
        moments = parts.get("optimizer", {})
        for name, parameter in self.model.named_parameters():
            self.trainer.optimizer.state[parameter] = {
                moment: moments[f"{moment}.{name}"]
                for moment in ("step", "exp_avg", "exp_avg_sq")
                if f"{moment}.{name}" in moments
            }
        self.trainer.state = tensors.get("state")
        self.steps, self.cpu, self.wall = (header[name] for name in ("steps", "cpu", "wall"))
        self.history = [(step, loss, scale) for step, loss, scale in header["history"]]
        for name in PROGRESS:
            kind = type(getattr(self.plateau, name))
            setattr(self.plateau, name, kind(header["plateau"][name]))
        torch.set_rng_state(tensors["random"])

    def _stop(self, reason: str) -> str:
        self.save()
        return reason

    def _validate(self, closes: bool = False) -> None:
        plateau, average = self.plateau, self.trainer.average.model
        loss, scale = self.measure(), plateau.scale
        better, falls = plateau.see(self.steps, loss, holds=closes)
        self.history.append((self.steps, loss, scale))
        if better:
            named = average.named_parameters()
            self._best = {name: parameter.detach().clone() for name, parameter in named}
        if falls and self._best:  # there is none if the loss was never finite
            _fill(self.model, self._best)
            _fill(average, self._best)


@torch.no_grad()
def pieces_loss(model: Baseline, pieces: Tensor, chunk: int = 256) -> float:
    """The loss on pieces of text, each a stream from zeros, in nats per token.

    Args:
        model: The baseline, in evaluation mode; recurrent, or with a cache.
        pieces: ``[pieces, length]``.
        chunk: Tokens read at a time.
    """
    total, state = 0.0, None
    inputs, targets = pieces[:, :-1], pieces[:, 1:]
    for part, target in zip(inputs.split(chunk, 1), targets.split(chunk, 1), strict=True):
        logits, state = model(part, state)
        total += float(
            F.cross_entropy(logits.flatten(0, 1), target.reshape(-1), reduction="sum").double()
        )
    return total / targets.numel()


def _shapes(named: Iterable[tuple[str, Tensor]]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in named}


@torch.no_grad()
def _fill(model: Baseline, values: dict[str, Tensor]) -> None:
    for name, parameter in model.named_parameters():
        parameter.copy_(values[name])

"""Where a run stands, for callbacks, logs and progress bars."""

from __future__ import annotations

import math
import os
import resource
import sys
import time
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from ..config.model_config import DualCNNConfig
from ..config.training_config import TrainingConfig
from ..model.dual_cnn import DualCNN
from ..model.state import State
from .evaluate import Evaluation

__all__ = [
    "Clock",
    "TrainingProgress",
    "attention_entropy",
    "memory_in_use",
    "progress_bar",
    "utilisation",
]


@dataclass(frozen=True)
class TrainingProgress:
    """Where a training run stands; losses in nats per token.

    Attributes:
        epoch: Times that the text has been read, a fraction.
        step: Steps done.
        steps: Steps in all.
        first_loss: The first CNN's loss in this step.
        second_loss: The second CNN's loss in this step, memory included.
        without_memory: The same without the memory.
        loss: The weighted sum that is minimised.
        learning_rate: Learning rate of this step.
        gradient_norm: Norm of the gradient before clipping.
        buffer_utilisation: Share of the rolling wave buffer that is filled, mean over streams.
        attention_entropy: Entropy of the attention in nats, mean over heads and steps of one
            stream; 0 where there is no attention.
        tokens_per_second: Since the start, or since the run was resumed.
        memory: Bytes in use: on the GPU where it trains there, else by this process.
        seconds_left: Estimate.
        characters_per_token: Of the text that is trained on.
        validation: Losses of the averaged weights on the validation text, in the steps that
            look at it.
        best: Whether this look is the best so far.
    """

    epoch: float
    step: int
    steps: int
    first_loss: float
    second_loss: float
    without_memory: float
    loss: float
    learning_rate: float
    gradient_norm: float
    buffer_utilisation: float
    attention_entropy: float
    tokens_per_second: float
    memory: int
    seconds_left: float
    characters_per_token: float = 1.0
    validation: Evaluation | None = None
    best: bool = False

    @property
    def held_out_loss(self) -> float | None:
        """The validation loss, memory included; ``None`` between two looks."""
        return None if self.validation is None else self.validation.loss

    @property
    def bits_per_character(self) -> float:
        """Of the validation text in the steps that look at it, else of this step's text."""
        loss = self.second_loss if self.validation is None else self.validation.loss
        return loss / math.log(2) / self.characters_per_token


class Clock:
    """Time spent on a run, over all its parts.

    Args:
        seconds: Spent before this part.
        step: Steps done before this part.
        config: Gives the steps in all, and the tokens of each.
    """

    def __init__(self, seconds: float, step: int, config: TrainingConfig) -> None:
        self._before, self._first, self._config = seconds, step, config
        self._start = time.monotonic()

    def seconds(self) -> float:
        """Time spent so far, in seconds."""
        return self._before + time.monotonic() - self._start

    def rate(self, step: int) -> float:
        """Tokens per second in this part."""
        tokens = (step - self._first) * self._config.batch * self._config.chunk
        return tokens / max(1e-9, time.monotonic() - self._start)

    def left(self, step: int) -> float:
        """Estimate of the seconds that the remaining steps take."""
        elapsed = time.monotonic() - self._start
        return elapsed / max(1, step - self._first) * (self._config.steps - step)


def utilisation(config: DualCNNConfig, state: State) -> float:
    """Share of the rolling wave buffer that is filled, mean over streams."""
    capacity = config.memory or config.wave_window
    return float((state["position"] / capacity).clamp(max=1).mean())


@torch.no_grad()
def attention_entropy(model: DualCNN, tokens: Tensor, state: State) -> float:
    """Mean entropy of the attention in nats over a chunk of one stream; 0 without attention.

    Args:
        model: The model.
        tokens: The chunk, ``[1, T]``.
        state: The state before it.
    """
    if not model.config.attends:
        return 0.0
    training = model.training
    model.eval()
    try:
        attended = model.compute(tokens, state, need_weights=True).attended
    finally:
        model.train(training)
    assert attended is not None
    return float(attended.entropy().mean())


def memory_in_use(device: torch.device) -> int:
    """Bytes in use: allocated on a GPU, or resident in this process."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
    except (OSError, ValueError, IndexError):
        # The peak, where the present is not to be had; in KiB except on macOS.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def progress_bar(total: int, unit: str, what: str) -> tqdm[object]:
    """A progress bar on a terminal, and silence where the output is a file.

    Args:
        total: Number of units in all.
        unit: What is counted.
        what: What is being done.
    """
    scaled = unit == "token"
    return tqdm(
        total=total, unit=unit, desc=what, unit_scale=scaled, dynamic_ncols=True, disable=None
    )

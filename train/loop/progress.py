"""Progress of a training run, for callbacks, logs and progress bars."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from ...runtime import process
from ..config.model_config import DualCNNConfig
from ..config.training_config import TrainingConfig
from ..model.dual_cnn import DualCNN
from ..model.state import State
from .evaluation import Evaluation

__all__ = [
    "Clock",
    "TrainingProgress",
    "attention_entropy",
    "memory_in_use",
    "peak_memory",
    "utilisation",
]


@dataclass(frozen=True)
class TrainingProgress:
    """Progress of a training run; losses are in nats per token.

    Attributes:
        epoch: How many times the text has been read, as a fraction.
        step: Steps done.
        steps: Total number of steps.
        first_loss: The first CNN's loss in this step.
        second_loss: The second CNN's loss in this step, memory included.
        without_memory: The second CNN's loss in this step, without the memory.
        loss: The weighted sum that training minimizes.
        learning_rate: Learning rate of this step.
        gradient_norm: Norm of the gradient before clipping.
        buffer_utilisation: Share of the rolling wave buffer in use, averaged over streams.
        attention_entropy: Entropy of the attention weights in nats, averaged over the heads
            and steps of one stream; 0 without attention.
        tokens_per_second: Throughput since the start or the last resume.
        memory: Bytes in use on the GPU, or by this process when training on a CPU.
        seconds_left: Estimate of the remaining time.
        characters_per_token: Average over the corpus.
        validation: Losses of the averaged weights on the validation text, in steps that
            validate.
        best: Whether this validation is the best so far.
        saves: Whether this step makes a checkpoint; its model is saved by now.
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
    saves: bool = False

    @property
    def held_out_loss(self) -> float | None:
        """The validation loss, memory included; ``None`` in steps that do not validate."""
        return None if self.validation is None else self.validation.loss

    @property
    def bits_per_character(self) -> float:
        """Bits per character of the text of this step."""
        return self._bits(self.second_loss)

    @property
    def validation_bits_per_character(self) -> float | None:
        """Bits per character of the validation text; ``None`` in steps that do not validate."""
        return None if self.validation is None else self._bits(self.validation.loss)

    def _bits(self, loss: float) -> float:
        return loss / math.log(2) / self.characters_per_token


class Clock:
    """Measure the time spent on a run, including the parts before it was resumed.

    Args:
        seconds: Time spent before this part.
        step: Steps done before this part.
        config: Supplies the tokens of a step.
    """

    def __init__(self, seconds: float, step: int, config: TrainingConfig) -> None:
        self._before, self._first, self._config = seconds, step, config
        self._start = time.monotonic()

    def seconds(self) -> float:
        """Seconds spent so far."""
        return self._before + time.monotonic() - self._start

    def rate(self, step: int) -> float:
        """Tokens per second in this part of the run."""
        tokens = (step - self._first) * self._config.batch * self._config.chunk
        return tokens / max(1e-9, time.monotonic() - self._start)

    def left(self, step: int, steps: int) -> float:
        """Estimate the seconds that the remaining steps take, of ``steps`` in all."""
        elapsed = time.monotonic() - self._start
        return elapsed / max(1, step - self._first) * (steps - step)


def utilisation(config: DualCNNConfig, state: State) -> float:
    """Share of the rolling wave buffer in use, averaged over streams."""
    capacity = config.entries or config.wave_window
    return float((state["position"] / capacity).clamp(max=1).mean())


@torch.no_grad()
def attention_entropy(model: DualCNN, tokens: Tensor, state: State) -> float:
    """Mean entropy of the attention weights in nats over a chunk; 0 without attention.

    Args:
        model: The model.
        tokens: The chunk of one stream, ``[1, T]``.
        state: State before the chunk.
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
    """Bytes allocated on a GPU, or resident in this process for a CPU."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
    except (OSError, ValueError, IndexError):
        return process.peak_memory()


def peak_memory(device: torch.device) -> int:
    """Most bytes ever allocated on a GPU, or resident in this process for a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return process.peak_memory()

"""How fast this machine trains and measures a model, and what a whole run will take."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass

import torch

from .config.model_config import DualCNNConfig
from .data.streams import Streams, Text
from .data.token_file import Tokens
from .loop.batch_step import BatchStep
from .loop.distributed import Group
from .loop.evaluation import evaluate
from .loop.progress import peak_memory
from .model.dual_cnn import DualCNN
from .model.precision import autocast_dtype

__all__ = ["Forecast", "Speed", "forecast", "measure_speed"]

_CHUNK = 512
"""Tokens of a stream that an evaluation reads at a time."""

_CPU = torch.device("cpu")

_MEASURING = 2.0
"""Seconds in which steps are measured, two at least."""

_PIECES = 8
"""Streams of a validation."""


@dataclass(frozen=True)
class Speed:
    """Times on this machine.

    Attributes:
        step: Seconds of a training step.
        held_out: Seconds per token of the held-out text, which is read as one stream.
        validation: Seconds per token of the validation text, read in several streams.
    """

    step: float
    held_out: float
    validation: float


@dataclass(frozen=True)
class Forecast:
    """What a run will take on this machine.

    Attributes:
        seconds: From the first step to the measured model.
        memory: Most bytes at a time: of this process, or on the GPU.
    """

    seconds: float
    memory: int


def forecast(
    config: DualCNNConfig, steps: int, validated: int, held_out: int, device: torch.device
) -> Forecast:
    """Tell in advance what a run will take, by a few steps of the same size.

    Args:
        config: The configuration to train.
        steps: Steps to do.
        validated: Tokens of the validation text.
        held_out: Tokens of the held-out text.
        device: Where it is trained.
    """
    speed = measure_speed(config, device)
    validations = math.ceil(steps / config.training.validate_every)
    held_out = min(held_out, config.training.held_out_tokens)
    seconds = steps * speed.step + validations * validated * speed.validation
    return Forecast(seconds + held_out * speed.held_out, peak_memory(device))


def measure_speed(config: DualCNNConfig, device: torch.device = _CPU) -> Speed:
    """Measure how long training and measuring take, with random tokens.

    Args:
        config: The configuration to train.
        device: What will train it.
    """
    model = DualCNN(config).to(device)
    tokens = _random_tokens(config, _PIECES * _CHUNK + 1)
    evaluate(model, tokens[:_CHUNK], chunk=_CHUNK)  # warm-up: the first pass is slower
    seconds = []
    for rows in (1, _PIECES):
        start = time.monotonic()
        evaluate(model, tokens[: rows * _CHUNK + 1], rows, _CHUNK)
        seconds.append((time.monotonic() - start) / (rows * _CHUNK))
    return Speed(_seconds_per_step(model, config, device), *seconds)


def _seconds_per_step(model: DualCNN, config: DualCNNConfig, device: torch.device) -> float:
    """The median, which a moment of another program does not change."""
    model.autocast = autocast_dtype(config.training.precision, device)
    model.train()
    tokens = _random_tokens(config, config.training.batch * config.training.chunk * 2)
    streams = Streams(Text(Tokens.of(tokens)), config.training)
    group = Group(device=device)
    batch = BatchStep(model, config.training, group, streams, None, lambda note: None)
    batch.backward(0)  # warm-up
    seconds: list[float] = []
    while len(seconds) < 2 or sum(seconds) < _MEASURING:
        start = time.monotonic()
        batch.backward(len(seconds))
        seconds.append(time.monotonic() - start)
    return statistics.median(seconds)


def _random_tokens(config: DualCNNConfig, count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, config.vocab_size, (count,), generator=generator)

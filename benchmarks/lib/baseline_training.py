"""Training the baselines the way the project's own model is trained.

They share its streams, batches, optimiser, schedule, weight average and number format.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from rillet.train.config.training_config import TrainingConfig
from rillet.train.data.streams import Streams, Text
from rillet.train.data.token_file import Tokens
from rillet.train.loop.optimizer import WeightAverage, learning_rate, make_optimizer
from rillet.train.model.dropout_noise import step_seed
from rillet.train.model.precision import autocast_dtype

from .baselines import GPT, Baseline

__all__ = ["BaselineTrainer", "held_out_loss", "train_baseline"]


class BaselineTrainer:
    """Trains a baseline step by step, as :class:`rillet.train.DualCNNTrainer` trains our model.

    Args:
        model: The baseline; trained in place.
        text: The text to train on.
        config: How to train. Settings of the memory and the two CNNs are ignored.

    Attributes:
        average: The moving average of the weights.
        dtype: What autocast computes matrix products in; ``None`` for float32.
        state: State of the streams after the last step, ``[..., B, ...]`` along its second axis.

    Raises:
        ValueError: A chunk is longer than the model's context.
    """

    def __init__(self, model: Baseline, text: Text, config: TrainingConfig) -> None:
        if isinstance(model, GPT) and config.chunk > model.context:
            raise ValueError(
                f"a chunk of {config.chunk} tokens exceeds the GPT's context of {model.context}"
            )
        self.model, self.config, self.streams = model.train(), config, Streams(text, config)
        self.optimizer = make_optimizer(model, config)
        self.average = WeightAverage(model, config.average)
        self.dtype = autocast_dtype(config.precision, model.tokens.weight.device)
        self.state: Tensor | None = None
        torch.manual_seed(config.seed)  # for dropout

    def step(self, step: int, rate: float | None = None) -> float:
        """Take one optimiser step; returns its loss in nats per token.

        Args:
            step: Number of the step.
            rate: Learning rate; that of the configuration's schedule by default.
        """
        config, model = self.config, self.model
        device = model.tokens.weight.device
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(config, step) if rate is None else rate
        inputs, targets = self.streams.chunk(step, range(config.batch))
        if self.state is not None:
            # Reset a few random streams, as our trainer does.
            generator = torch.Generator().manual_seed(step_seed(config.seed, step))
            kept = torch.rand(config.batch, generator=generator) >= config.reset
            sizes = [1, -1, *[1] * (self.state.dim() - 2)]
            self.state = self.state.detach() * kept.to(device).view(sizes)
        with torch.autocast(
            device.type, self.dtype or torch.bfloat16, enabled=self.dtype is not None
        ):
            logits, self.state = model(inputs.to(device), self.state)
        loss = F.cross_entropy(logits.float().flatten(0, 1), targets.to(device).reshape(-1))
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        self.optimizer.step()
        self.average.update(step)
        return float(loss.detach())


def train_baseline(
    model: Baseline,
    text: Text,
    config: TrainingConfig,
    on_evaluation: Callable[[int, float, Baseline], object] | None = None,
    deadline_steps: int | None = None,
) -> Baseline:
    """Train a baseline the way our model is trained.

    Args:
        model: The baseline; trained in place.
        text: The text to train on.
        config: How to train.
        on_evaluation: Called every ``validate_every`` steps and after the last one with the
            number of steps done, the seconds they took, and the model with averaged weights.
        deadline_steps: Stop after this many steps, on the schedule of ``config.steps``.

    Returns:
        The model with averaged weights, in evaluation mode.
    """
    trainer, seconds = BaselineTrainer(model, text, config), 0.0
    last = min(config.steps, deadline_steps or config.steps)
    for step in range(last):
        start = time.perf_counter()
        trainer.step(step)
        seconds += time.perf_counter() - start
        if on_evaluation and ((step + 1) % config.validate_every == 0 or step + 1 == last):
            on_evaluation(step + 1, seconds, trainer.average.model)
    return trainer.average.model


@torch.no_grad()
def held_out_loss(model: Baseline, tokens: Tensor | Tokens) -> float:
    """The loss of a baseline on a text, in nats per token.

    A recurrent model reads the text as one stream from a zero state. A GPT reads windows of its
    context that overlap by half, and is scored on the second half of each, so that all but the
    first predictions see at least half a context.

    Args:
        model: The baseline, in evaluation mode.
        tokens: The text, ``[length]``; every token but the first is predicted once.
    """
    text = Tokens.of(tokens)
    count = len(text) - 1
    device = model.tokens.weight.device
    total = torch.zeros((), dtype=torch.float64)
    state = None
    half = model.context // 2 if isinstance(model, GPT) else 0
    size, stride = (2 * half, half) if half else (1024, 1024)
    starts = torch.arange(0, max(1, count - half), stride)
    for batch in starts.split(32 if half else 1):
        # Windows wrap around at the end of the text; predictions there are not counted.
        window = text.windows(batch, size + 1).to(device)
        logits, state = model(window[:, :-1], state)
        losses = F.cross_entropy(logits.flatten(0, 1), window[:, 1:].reshape(-1), reduction="none")
        offsets = torch.arange(size)
        scored = (offsets >= half) | (batch == 0).unsqueeze(1)
        scored = scored & (batch.unsqueeze(1) + offsets < count)
        total += losses.double().cpu()[scored.reshape(-1)].sum()
    return float(total / count)

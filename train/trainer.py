"""Training both CNNs together, on contiguous streams with carried state."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..runtime.errors import CorpusError, RilletError
from .evaluate import Evaluation, evaluate
from .model import DualCNN, DualCNNOutput, State
from .training_config import TrainingConfig

__all__ = ["DualCNNTrainer", "TrainingError", "TrainingProgress"]


class TrainingError(RilletError):
    """Training cannot go on."""


@dataclass(frozen=True)
class TrainingProgress:
    """Where a training run stands; losses in nats per token.

    Attributes:
        step: Steps done.
        steps: Steps in all.
        first_loss: The first CNN's loss in this step.
        second_loss: The second CNN's loss in this step, memory included.
        loss: Their weighted sum.
        learning_rate: Learning rate of this step.
        gradient_norm: Norm of the gradient before clipping.
        tokens_per_second: Since the start.
        seconds_left: Estimate.
        validation: Losses on the validation text, in the steps that look at it.
    """

    step: int
    steps: int
    first_loss: float
    second_loss: float
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens_per_second: float
    seconds_left: float
    validation: Evaluation | None


class DualCNNTrainer:
    """Trains a model on a text.

    The loss is ``0.3 CE(first CNN) + 0.7 CE(second CNN, memory included)``, the
    weights configurable. The corpus is cut into as many streams as the batch has
    rows; a stream that reaches the end of its part goes on into the next.

    Args:
        model: The model; trained in place.
        config: How to train.
    """

    def __init__(self, model: DualCNN, config: TrainingConfig) -> None:
        self.model = model
        self.config = config.validate()

    def train(
        self,
        tokens: Tensor,
        validation: Tensor | None = None,
        on_progress: Callable[[TrainingProgress], None] | None = None,
    ) -> None:
        """Train for the configured number of steps.

        Args:
            tokens: The text to train on, ``[length]``.
            validation: A text to measure progress on, ``[length]``.
            on_progress: Called after each step.

        Raises:
            CorpusError: The text is shorter than one chunk for each stream.
            TrainingError: The loss is no longer a finite number.
        """
        config, model = self.config, self.model
        streams = _Streams(tokens, config)
        optimizer = self._optimizer()
        state = model.zero_state(config.batch)
        model.train()
        started = time.monotonic()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            for step in range(config.steps):
                rate = config.learning_rate * self.schedule(step)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                inputs, targets = streams.chunk(step)
                output = model.compute(inputs, self._restart(state), trust=self._trust())
                first, second, loss = self._losses(output, targets)
                if not torch.isfinite(loss):
                    raise TrainingError(
                        f"the loss is {loss.item()} at step {step + 1}; the last checkpoint is "
                        f"kept; try a learning_rate below {config.learning_rate}"
                    )
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
                optimizer.step()
                state = {name: tensor.detach() for name, tensor in output.state.items()}
                if on_progress is not None:
                    done, elapsed = step + 1, time.monotonic() - started
                    on_progress(
                        TrainingProgress(
                            step=done,
                            steps=config.steps,
                            first_loss=first.item(),
                            second_loss=second.item(),
                            loss=loss.item(),
                            learning_rate=rate,
                            gradient_norm=norm.item(),
                            tokens_per_second=done * inputs.numel() / elapsed,
                            seconds_left=elapsed / done * (config.steps - done),
                            validation=self._look(done, validation),
                        )
                    )
        model.eval()

    def schedule(self, step: int) -> float:
        """Share of the highest learning rate: warm-up, then a cosine to the final rate."""
        config = self.config
        cosine = 0.5 + 0.5 * math.cos(math.pi * step / config.steps)
        decay = config.final_rate + (1 - config.final_rate) * cosine
        return decay * min(1.0, (step + 1) / max(1, config.warmup))

    def _losses(self, output: DualCNNOutput, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        target = targets.reshape(-1)
        first = F.cross_entropy(output.first_logits.flatten(0, 1), target)
        second = F.nll_loss(output.logits.flatten(0, 1), target)
        return first, second, self.config.first_weight * first + self.config.second_weight * second

    def _optimizer(self) -> torch.optim.AdamW:
        decayed = [p for p in self.model.parameters() if p.dim() >= 2]
        plain = [p for p in self.model.parameters() if p.dim() < 2]
        groups = [
            {"params": decayed, "weight_decay": self.config.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(
            groups, lr=self.config.learning_rate, betas=(0.9, 0.99), fused=True
        )

    def _restart(self, state: State) -> State:
        """Zero the state of a random few streams: a model must also begin well."""
        kept = torch.rand(self.config.batch) >= self.config.reset
        return {
            name: tensor * kept.view(-1, *[1] * (tensor.dim() - 1))
            for name, tensor in state.items()
        }

    def _trust(self) -> Tensor:
        """Switch the memory off for a random few streams."""
        return (torch.rand(self.config.batch) >= self.config.memory_dropout).float()

    def _look(self, step: int, validation: Tensor | None) -> Evaluation | None:
        due = step % self.config.validate_every == 0 or step == self.config.steps
        if validation is None or len(validation) < 2 or not due:
            return None
        return evaluate(self.model, validation, rows=16)


class _Streams:
    """The rows of a batch: contiguous streams over one text."""

    def __init__(self, tokens: Tensor, config: TrainingConfig) -> None:
        needed = config.batch * config.chunk
        if len(tokens) < needed:
            raise CorpusError(
                f"the text to train on has {len(tokens):,} tokens, and {config.batch} streams of "
                f"{config.chunk} tokens need {needed:,}; give more text, or a smaller batch"
            )
        self.length, self.chunk_length = len(tokens), config.chunk
        # The text begins again where it ends.
        self.tokens = torch.cat([tokens, tokens[: config.chunk + 1]])
        self.starts = torch.arange(config.batch) * self.length // config.batch

    def chunk(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of a step, each ``[B, T]``."""
        starts = (self.starts + step * self.chunk_length) % self.length
        window = self.tokens[starts.unsqueeze(1) + torch.arange(self.chunk_length + 1)]
        return window[:, :-1], window[:, 1:]

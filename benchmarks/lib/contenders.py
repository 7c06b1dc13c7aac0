"""Models that are trained step by step, side by side: ours, and the baselines."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Protocol

import torch

from rillet.train import DualCNN, DualCNNConfig, DualCNNTrainer, evaluate
from rillet.train.data.streams import Split, Streams
from rillet.train.data.token_file import Tokens
from rillet.train.loop.batch_step import BatchStep
from rillet.train.loop.distributed import Group
from rillet.train.model.precision import autocast_dtype

from .baseline_training import BaselineTrainer, held_out_loss
from .baselines import Baseline
from .naive import naive_forms

__all__ = ["BaselineContender", "Contender", "OwnContender"]


class Contender(Protocol):
    """A model that is trained step by step."""

    parameters: int

    def step(self, step: int) -> None:
        """Train for a step."""

    def losses(self, text: Tokens) -> dict[str, float]:
        """Losses of the averaged weights on a text, by name, in nats per token."""


class OwnContender:
    """The project's own model under its own trainer.

    Args:
        config: The model and its training.
        texts: The text to train on.
        words: The bytes of each token, from which the memory learns what a word is.
        naive: Whether to compute the model in its naive forms, in float32.
    """

    def __init__(
        self, config: DualCNNConfig, texts: Split, words: Sequence[bytes], naive: bool = False
    ) -> None:
        training = config.training.replace(precision="fp32") if naive else config.training
        model = DualCNN(config).fit(texts.trained.tokens, words)
        self.parameters = model.parameter_count()
        self._forms = naive_forms if naive else nullcontext
        self._trainer = DualCNNTrainer(model, training)
        streams = Streams(texts.trained, training)
        self._batch = BatchStep(model, training, Group(), streams, None, print)
        model.autocast = autocast_dtype(training.precision, torch.device("cpu"))
        model.train()

    def step(self, step: int) -> None:
        """Train for a step."""
        with self._forms():
            self._trainer.step(self._batch, step)

    def losses(self, text: Tokens) -> dict[str, float]:
        """Losses on a text with the memory and without."""
        evaluation = evaluate(self._trainer.average.model, text)
        return {"with memory": evaluation.loss, "without memory": evaluation.without_memory}


class BaselineContender:
    """A baseline under the baselines' trainer."""

    def __init__(self, model: Baseline, config: DualCNNConfig, texts: Split) -> None:
        self.parameters = model.parameter_count()
        self._trainer = BaselineTrainer(model, texts.trained, config.training)

    def step(self, step: int) -> None:
        """Train for a step."""
        self._trainer.step(step)

    def losses(self, text: Tokens) -> dict[str, float]:
        """The loss on a text."""
        return {"loss": held_out_loss(self._trainer.average.model.eval(), text)}

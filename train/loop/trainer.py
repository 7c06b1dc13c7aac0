"""Train both CNNs together, on contiguous streams that carry their state."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...runtime.files import as_path, make_folder
from ...runtime.interrupt import interruptible
from ..config.training_config import TrainingConfig
from ..data.streams import Streams, Text
from ..data.token_file import Tokens
from ..model.dual_cnn import DualCNN
from ..model.precision import autocast_dtype
from ..own_parts import described, own_parts
from .batch_step import BatchStep, TrainingError
from .distributed import Group
from .evaluation import Evaluation, evaluate_rows
from .losses import Losses
from .optimizer import WeightAverage, learning_rate, make_optimizer
from .progress import Clock, TrainingProgress, attention_entropy, memory_in_use, utilisation
from .resume import RunState, load_run_state, save_run_state
from .time_limit import TimeLimit

__all__ = ["DualCNNTrainer", "TrainingError", "TrainingResult"]

_SILENCE = 30.0
"""Seconds after which the next step is reported, whatever its number."""


@dataclass(frozen=True)
class TrainingResult:
    """Outcome of a training run.

    Attributes:
        steps: Steps done.
        best_step: Step whose averaged weights the model now has: that of the best
            validation, or the last step without a validation text.
        validation_loss: Validation loss of these weights; ``None`` without a validation text.
        stopped: Why training stopped: ``steps`` when all were done, ``patience`` when the
            loss no longer improved, ``until`` when the caller asked for fewer steps.
    """

    steps: int
    best_step: int
    validation_loss: float | None
    stopped: str


class DualCNNTrainer:
    """Trains a model on a text.

    The loss is ``0.3 CE(first CNN) + 0.7 CE(second CNN)``, with configurable weights. The
    text is cut into as many streams as the batch has rows. Each stream carries its state from
    chunk to chunk, and continues into the next part when it reaches the end of its own. The
    result is the moving average of the weights at the best validation.

    Args:
        model: The model; trained in place.
        config: Settings of training; those of the model's configuration by default.
        group: The processes that train together; this one alone by default.
        folder: Folder for the state of the run, so that it can be resumed; created if missing.
        save: Called by the leading process with the model to keep, at each checkpoint.
        about: Whatever must be identical when the run is resumed, besides the configuration and
            the texts.
        notify: Called with a sentence when training deviates from its settings.

    Attributes:
        saved: Step of the last checkpoint of this run; 0 before the first.
    """

    def __init__(
        self,
        model: DualCNN,
        config: TrainingConfig | None = None,
        group: Group | None = None,
        folder: str | Path | None = None,
        save: Callable[[DualCNN, RunState], None] | None = None,
        about: dict[str, Any] | None = None,
        notify: Callable[[str], None] | None = None,
    ) -> None:
        self.config = (config or model.config.training).validate()
        model.check_fitted()
        self.group = group or Group()
        self.folder = None if folder is None else as_path(folder)
        self._save, self._notify = save, notify or (lambda note: None)
        self.model = model.to(self.group.device)
        shape = {**model.config.to_dict(), "training": self.config.to_dict()}
        self.about = {"config": shape, "parts": described(own_parts(model)), **(about or {})}
        self.optimizer = make_optimizer(model, self.config)
        self.average = WeightAverage(model, self.config.average)
        self.run = RunState()
        self.saved = 0

    def train(
        self,
        tokens: Tensor | Tokens | Text,
        validation: Tensor | None = None,
        on_progress: Callable[[TrainingProgress], None] | None = None,
        *,
        resume: bool = False,
        until: int | None = None,
        characters_per_token: float = 1.0,
        limit: TimeLimit | None = None,
        on_sample: Callable[[int, DualCNN], None] | None = None,
        sample_every: int = 0,
    ) -> TrainingResult:
        """Train for the configured number of steps.

        Args:
            tokens: The text to train on.
            validation: Text to measure progress on, ``[length]`` or ``[pieces, length]``.
            on_progress: Called every ``report_every`` steps, at each checkpoint, and after steps
                that took half a minute.
            resume: Resume the run whose state is in the folder.
            until: Stop after this step, as if interrupted; the run can be resumed.
            characters_per_token: Average over the text, for progress reports.
            limit: Time for the run; it corrects the number of steps, and :attr:`config` with it.
            on_sample: Called with the step and the averaged model, a copy whose use does not affect
                the run.
            sample_every: Steps between these calls; 0 makes none.

        Returns:
            The outcome. However training ends, the model has the best averaged weights and is in
            evaluation mode.

        Raises:
            CorpusError: The text is shorter than one chunk per stream.
            TrainingError: The loss is no longer finite, or not even a single stream fits in
                memory. The last good checkpoint, if there is one, is kept.
            BundleError: There is no matching run to resume.
            KeyboardInterrupt: The user stopped the run; a checkpoint was written first.
        """
        model = self.model
        text = tokens if isinstance(tokens, Text) else Text(Tokens.of(tokens))
        streams = Streams(text, self.config)
        self.about["training text"] = text.tokens.sha256()
        self.about["validation text"] = (
            None if validation is None else Tokens.of(validation.reshape(-1)).sha256()
        )
        if resume:
            self._resume(limit)
        if self.folder is not None:
            make_folder(self.folder)
        run, config = self.run, self.config
        batch = BatchStep(model, config, self.group, streams, run.streams, self._notify)
        clock = Clock(run.seconds, run.step, config)
        stopped = "steps"

        def progress(
            losses: Losses, norm: float, evaluation: Evaluation | None, improved: bool, saves: bool
        ) -> TrainingProgress:
            return TrainingProgress(
                epoch=run.step * config.batch * config.chunk / len(text),
                step=run.step,
                steps=config.steps,
                first_loss=losses.first,
                second_loss=losses.second,
                without_memory=losses.without_memory,
                loss=losses.total,
                learning_rate=learning_rate(config, run.step - 1),
                gradient_norm=norm,
                buffer_utilisation=utilisation(model.config, batch.state),
                attention_entropy=attention_entropy(model, *batch.sample(run.step)),
                tokens_per_second=clock.rate(run.step),
                memory=memory_in_use(self.group.device),
                seconds_left=clock.left(run.step, config.steps),
                characters_per_token=characters_per_token,
                validation=evaluation,
                best=improved,
                saves=saves,
            )

        model.autocast = autocast_dtype(config.precision, self.group.device)
        model.train()
        try:
            with interruptible() as interrupt:
                config, reported = self._keep_to(limit), time.monotonic()
                while run.step < config.steps and (until is None or run.step < until):
                    began = time.monotonic()
                    losses, norm = self.step(batch, run.step)
                    run.step, run.seconds = run.step + 1, clock.seconds()
                    config = self._keep_to(limit, began)
                    if on_sample is not None and sample_every and run.step % sample_every == 0:
                        on_sample(run.step, self.average.model)
                    looked = time.monotonic()
                    evaluation = self._validate(validation)
                    improved = evaluation is not None and self._keep_if_best(evaluation)
                    # Asked once a step, so that the run does not end where it is not saved.
                    interrupted = self.group.any(interrupt.requested)
                    ending = interrupted or run.step in (until, config.steps)
                    saves = (
                        ending or evaluation is not None or self._is_due(config.checkpoint_every)
                    )
                    silent = time.monotonic() - reported > _SILENCE
                    # The report comes between: after the model, so that an older run's log lasts
                    # as long as its model, and before the state, whose resumption repeats none.
                    if saves and (improved or run.best is None):
                        self._save_model()
                    try:
                        if on_progress and (saves or silent or self._is_due(config.report_every)):
                            reported = time.monotonic()
                            on_progress(progress(losses, norm, evaluation, improved, saves))
                    finally:  # a callback that raises loses no step
                        if saves:
                            self._save_state(batch)
                    if limit is not None and evaluation is not None:
                        limit.validated(time.monotonic() - looked)
                    if interrupted:
                        break
                    waited = (run.step - run.best_step) // config.validate_every
                    if config.patience and run.best is not None and waited >= config.patience:
                        stopped = "patience"
                        break
                if self.group.any(interrupt.requested):
                    raise KeyboardInterrupt
        finally:
            self._finish()
        if stopped == "steps" and run.step < config.steps:
            stopped = "until"
        loss = None if run.best is None else run.best_loss
        return TrainingResult(run.step, run.best_step or run.step, loss, stopped)

    def _is_due(self, every: int) -> bool:
        return self.run.step % every == 0

    def _keep_to(self, limit: TimeLimit | None, began: float | None = None) -> TrainingConfig:
        """Correct the number of steps to the time that is left, after a step that began then."""
        run = self.run
        if limit is not None:
            if began is not None:
                limit.took(time.monotonic() - began)
            steps = limit.plan(run.step, self.config.steps, self.config.validate_every)
            self.config = dataclasses.replace(self.config, steps=steps)
            run.steps, run.most, run.corrections = steps, limit.most, limit.corrections
        return self.config

    def _resume(self, limit: TimeLimit | None) -> None:
        if self.folder is None:
            raise TrainingError("there is no folder to resume from; pass one to the trainer")
        self.run = load_run_state(self.folder, self.model, self.average, self.optimizer, self.about)
        run = self.run
        self.saved = run.step
        if run.steps:  # a time limit has corrected them
            self.config = dataclasses.replace(self.config, steps=run.steps)
        if limit is not None:
            limit.resume(run.seconds, run.most, run.corrections)

    def step(self, batch: BatchStep, step: int) -> tuple[Losses, float]:
        """Take one step of the optimizer.

        Args:
            batch: The streams; their state advances.
            step: Number of the step, from 0.

        Returns:
            The losses, and the gradient norm before clipping.

        Raises:
            TrainingError: The loss or a gradient is not finite.
        """
        config = self.config
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        self.optimizer.zero_grad()
        losses = batch.backward(step)
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.clip))
        if not losses.are_finite or not norm < float("inf"):
            kept = (
                f"the checkpoint of step {self.saved} is kept"
                if self.saved
                else "there is no checkpoint of this run yet"
                if self.folder
                else "the weights from before it are kept"
            )
            problem = (
                "a gradient is not finite" if losses.are_finite else f"the loss is {losses.total}"
            )
            raise TrainingError(
                f"{problem} at step {step + 1}; {kept}; try a learning_rate below "
                f"{config.learning_rate}"
            )
        self.optimizer.step()
        batch.commit()
        self.average.update(step)
        return losses, norm

    def _validate(self, validation: Tensor | None) -> Evaluation | None:
        """Measure the averaged weights, if this step is due for it."""
        step, config = self.run.step, self.config
        due = step % config.validate_every == 0 or step == config.steps
        if validation is None or validation.shape[-1] < 2 or not due:
            return None
        figures = [0.0] * 4
        if self.group.leads:
            own = evaluate_rows(self.average.model, validation)
            figures = [own.loss, own.without_memory, own.first, own.tokens]
        loss, without, first, tokens = self.group.from_leader(figures)
        return Evaluation(loss, without, first, int(tokens))

    def _keep_if_best(self, evaluation: Evaluation) -> bool:
        """Keep the averaged weights if they are the best so far."""
        run = self.run
        if not evaluation.loss < run.best_loss:
            return False
        run.best_loss, run.best_step = evaluation.loss, run.step
        run.best = {
            name: parameter.detach().clone()
            for name, parameter in self.average.model.named_parameters()
        }
        return True

    def _save_model(self) -> None:
        """Write the model to keep."""
        if self.group.leads and self._save is not None:
            self._save(self.average.model, self.run)

    def _save_state(self, batch: BatchStep) -> None:
        """Write the state of the run."""
        run = self.run
        run.streams = {name: self.group.gather(tensor) for name, tensor in batch.state.items()}
        if self.group.leads and self.folder is not None:
            save_run_state(self.folder, run, self.model, self.average, self.optimizer, self.about)
            self.saved = run.step

    def _finish(self) -> None:
        """Load the best averaged weights, or the last ones, into the model."""
        kept = self.run.best or dict(self.average.model.named_parameters())
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(kept[name])
        self.model.autocast = None
        self.model.eval()

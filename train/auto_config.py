"""Choose a configuration from a corpus, a budget and the user's settings, and say why."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..runtime.errors import UsageError
from .budget import Budget
from .bundle_size import bundle_size
from .config.model_config import DualCNNConfig
from .config.presets import PRESETS
from .data.corpus import Corpus
from .loop.time_limit import TimeLimit
from .model.dual_cnn import DualCNN
from .text_facts import TextFacts, compression_ratio, dropout_share, shape_for
from .timing import Speed, measure_speed

__all__ = ["Budget", "Choice", "choose", "infer", "limit_for"]

_MAX_EPOCHS = 25
"""The presets were tuned over some twenty epochs."""

_MIN_STEPS = 400
"""A larger preset is preferred only if the time allows as many steps as the ablation ran."""

_MIN_EPOCHS, _MAX_LENGTHENING = 6, 4
"""A large text is read this often, unless that takes so many times the preset's steps."""

_MIN_BYTES = {"micro": 500_000, "small": 5_000_000, "base": 8_000_000}
"""Sizes of a text from which a larger preset has enough to learn from."""

_REPETITIVE = 5
"""Compression ratio above which a text counts as repetitive."""

_HELD_OUT_SHARE = 0.1
"""Share of the time in which the held-out text is measured."""

_VALIDATION_SHARE = 0.02
"""Share of the time that one validation takes."""

_MIN_VALIDATION = 4_096
"""Validation tokens below which the best checkpoint would be chosen by chance."""

_SLACK, _MAX_SLACK = 0.1, 15.0
"""Share of the time for the plot and for what cannot be foreseen, and its limit in seconds."""

_SET_UP = 3.0, 5.0
"""Readings of the text, and steps, that take as long together as the set-up."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """A configuration, and what it was chosen for.

    Attributes:
        config: The configuration; its ``reasons`` explain every choice.
        preset: Name of the preset that it is a variant of; ``None`` for another run's.
        most: Steps that a longer time would not exceed.
        speed: Times on this machine; ``None`` without a limit of time.
    """

    config: DualCNNConfig
    preset: str | None
    most: int
    speed: Speed | None


def infer(
    corpus: str | Path | Sequence[str | Path] | Corpus,
    budget: str | Budget | None = None,
    *,
    preset: str | None = None,
    **changes: Any,
) -> DualCNNConfig:
    """Choose tokenizer, model size, chunk length, batch, steps and memory for a corpus.

    Args:
        corpus: The text.
        budget: The time or size allowed, such as ``30min``, ``1h30min`` or ``5MB``: time from text
            to measured model, size of the exported bundle.
        preset: Name of a preset to keep to, instead of choosing one.
        **changes: Settings of the model or of training to keep to.

    Returns:
        A configuration; its ``reasons`` explain every choice.

    Raises:
        CorpusError: The text cannot be used.
        UsageError: The budget cannot be parsed, or is too small for any model.
        ConfigError: Settings conflict.
    """
    limits = budget if isinstance(budget, Budget) else Budget.parse(budget)
    corpus = corpus if isinstance(corpus, Corpus) else Corpus(corpus)
    return choose(corpus, limits, changes, preset).config


DualCNNConfig.infer = staticmethod(infer)  # attached here: the configuration imports no model


def choose(
    corpus: Corpus,
    limits: Budget,
    changes: Mapping[str, Any],
    preset: str | None = None,
    started: float | None = None,
    device: torch.device | None = None,
) -> Choice:
    """Choose a configuration; see :func:`infer`.

    Args:
        corpus: The text.
        limits: What is allowed.
        changes: Settings to keep to.
        preset: Name of a preset to keep to; ``None`` chooses one.
        started: When the time began, in the seconds of :func:`time.monotonic`; now by default.
        device: What will train, and is measured; the processor by default.
    """
    started = time.monotonic() if started is None else started
    if changes.get("tokenizer") == "byte":
        corpus = corpus.as_bytes()
    reading = time.monotonic()
    corpus.scan()
    reading = time.monotonic() - reading
    text = TextFacts.of(corpus, changes)
    shape, reasons = shape_for(text, changes)
    speed = partial(measure_speed, device=device or torch.device("cpu"))
    chooser = _Chooser(text, limits, {**changes, **shape}, changes, started, reading, speed)
    choice, why = chooser.choose([preset] if preset is not None else list(PRESETS))
    given = f"preset={preset}: as you set; " if preset is not None else ""
    reasons += [given + why[0], *why[1:]]
    config = choice.config
    if "memory" in changes:
        reasons.append(f"memory={config.memory}: as you set")
    elif config.memory_key == "contexts":
        reasons.append(f"memory={config.memory}: slots for what followed the last tokens")
    elif (repetition := compression_ratio(corpus)) > _REPETITIVE:
        config = config.replace(memory=min(4096, 2 * config.memory))
        reasons.append(
            f"memory={config.memory}: the text is repetitive (it compresses to "
            f"1/{repetition:.1f}), so looking further back pays off"
        )
    else:
        reasons.append(
            f"memory={config.memory}: the text compresses to 1/{repetition:.1f}, as prose does"
        )
    kept = {"tokenizer", "chunk", "batch", "memory", "steps", "seed", *_MEASURED}
    if others := sorted(set(changes) - kept):
        named = ", ".join(f"{name}={changes[name]}" for name in others)
        reasons.append(f"{named}: as you set")
    return dataclasses.replace(choice, config=dataclasses.replace(config, reasons=tuple(reasons)))


def limit_for(choice: Choice, seconds: float, started: float, device: torch.device) -> TimeLimit:
    """The limit that keeps the training of a choice within a time.

    Args:
        choice: What is trained.
        seconds: The time allowed in all.
        started: When it began, in the seconds of :func:`time.monotonic`.
        device: What trains.
    """
    training = choice.config.training
    speed = choice.speed or measure_speed(choice.config, device)
    return TimeLimit(
        started + seconds,
        choice.most,
        speed.step,
        training.validation_tokens * speed.validation,
        training.held_out_tokens * speed.held_out,
        _HELD_OUT_SHARE * seconds,
        _slack(seconds),
    )


_MEASURED = ("held_out_tokens", "validation_tokens", "validate_every")


class _Chooser:
    """Chooses the largest preset that text, time, size and the user's settings allow."""

    def __init__(
        self,
        text: TextFacts,
        limits: Budget,
        settings: dict[str, Any],
        changes: Mapping[str, Any],
        started: float,
        reading: float,
        speed: Callable[[DualCNNConfig], Speed],
    ) -> None:
        self._text, self._limits, self._settings = text, limits, settings
        self._changes, self._started, self._reading = changes, started, reading
        self._speed = speed

    def choose(self, names: Sequence[str]) -> tuple[Choice, list[str]]:
        """Choose among presets, smallest first, and explain it."""
        chosen: tuple[Choice, list[str]] | None = None
        because = ""
        for name in names:
            if chosen is not None and self._text.size < _MIN_BYTES.get(name, 0):
                because = f"; {name} needs a text of {_MIN_BYTES[name] / 1e6:g} MB"
                break
            config = self._fitted(PRESETS[name])
            size = bundle_size(model := DualCNN(config))
            if self._limits.size is not None and size > self._limits.size:
                because = f"; {name} exports to a bundle of about {size / 1e6:.1f} MB"
                break
            if chosen is not None and self._limits.seconds is not None:
                # A larger model takes no fewer seconds a step.
                steps = chosen[0].config.training.steps
                if steps < min(_MIN_STEPS, chosen[0].most):
                    because = f"; too few for {name}"
                    break
            timed = self._with_steps(name, config)
            if timed is None and chosen is not None:
                because = f"; {name} would get none"
                break
            if timed is None:
                raise UsageError(
                    f"a budget of {self._limits.seconds:g} s leaves no time to train {name}: "
                    "reading the text and measuring take longer; raise the budget"
                )
            choice, why = timed
            if chosen is not None and choice.config.training.steps < min(_MIN_STEPS, choice.most):
                steps = choice.config.training.steps
                because = f"; {name} would get only {steps}"
                break
            if (share := dropout_share(self._text.size)) < 1 and "dropout" not in self._changes:
                timed[1].append(
                    f"dropout={config.dropout}: {share:.2f} of {name}'s, for a text of "
                    f"{self._text.size / 1e6:.1f} MB"
                )
            named = f"{name} with {model.parameter_count():,} trained parameters"
            if self._limits.size is not None:
                named += f", a bundle of about {size / 1e6:.1f} MB"
            chosen = choice, [f"{named}, {why[0]}", *why[1:]]
        if chosen is None:
            raise UsageError(f"no preset fits the budget{because}; raise the budget")
        choice, reasons = chosen
        return choice, [reasons[0] + because, *reasons[1:]]

    def _fitted(self, preset: DualCNNConfig) -> DualCNNConfig:
        """The preset with the settings; its windows fit the chunks, its dropout the text."""
        chunk = int(self._settings["chunk"])
        windows = ("attention_window", "wave_window")
        fitted: dict[str, Any] = {name: min(chunk, getattr(preset, name)) for name in windows}
        if (share := dropout_share(self._text.size)) < 1:
            drops = ("dropout", "input_dropout")
            fitted |= {name: round(share * getattr(preset, name), 2) for name in drops}
        return preset.replace(**{**fitted, **self._settings})

    def _with_steps(self, name: str, config: DualCNNConfig) -> tuple[Choice, list[str]] | None:
        """Set the number of steps, and of the tokens that are measured; ``None`` without time."""
        training = config.training
        most, why = training.steps, "as you set"
        if "steps" not in self._changes:
            epoch = self._text.tokens / (training.chunk * training.batch)
            longer = min(_MIN_EPOCHS * epoch, _MAX_LENGTHENING * most)
            most = int(min(max(most, longer), max(_MIN_STEPS, _MAX_EPOCHS * epoch)))
            why = ""
        if self._limits.seconds is None:
            config = config.replace(steps=most, validate_every=self._validate_every(most))
            return Choice(config, name, most, None), [f"steps={most} {why}".rstrip()]
        speed = self._speed(config)
        config, reasons = self._fit_measuring(config, speed, self._limits.seconds)
        steps = min(most, self._steps(config, speed, self._limits.seconds))
        if steps < 1:
            return None
        config = config.replace(steps=steps, validate_every=self._validate_every(steps))
        cap = f" of at most {most:,} {why}".rstrip()
        first = (
            f"steps={steps}{cap}: {speed.step * 1000:.0f} ms each, measured; corrected on the way "
            f"so that everything takes {self._limits.seconds:g} s"
        )
        return Choice(config, name, most, speed), [first, *reasons]

    def _fit_measuring(
        self, config: DualCNNConfig, speed: Speed, seconds: float
    ) -> tuple[DualCNNConfig, list[str]]:
        """Measure as many held-out and validation tokens as their shares of the time allow."""
        reasons = []
        shares = {
            "held_out_tokens": (int(_HELD_OUT_SHARE * seconds / speed.held_out), speed.held_out),
            "validation_tokens": (
                max(_MIN_VALIDATION, int(_VALIDATION_SHARE * seconds / speed.validation)),
                speed.validation,
            ),
        }
        for name, (fitting, each) in shares.items():
            if name in self._changes:
                reasons.append(f"{name}={self._changes[name]}: as you set")
            elif fitting < getattr(config.training, name):
                count = max(2, fitting)
                config = config.replace(**{name: count})
                once = " each time" if name == "validation_tokens" else ""
                reasons.append(f"{name}={count}: measuring them takes {count * each:.1f} s{once}")
        return config, reasons

    def _steps(self, config: DualCNNConfig, speed: Speed, seconds: float) -> int:
        """Steps that fit in the time that is left."""
        training = config.training
        texts, steps = _SET_UP
        left = self._started + seconds - time.monotonic() - _slack(seconds)
        left -= texts * self._reading + steps * speed.step
        left -= training.held_out_tokens * speed.held_out
        look = training.validation_tokens * speed.validation
        every = self._validate_every(left / speed.step)
        return int((left - look) / (speed.step + look / every))

    def _validate_every(self, steps: float) -> int:
        given: int | None = self._changes.get("validate_every")
        return max(1, min(200, int(steps) // 4)) if given is None else given


def _slack(seconds: float) -> float:
    return min(_SLACK * seconds, _MAX_SLACK)

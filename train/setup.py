"""Set up a model part by part, with progress, fallbacks, and errors that name the part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from torch import nn

from ..runtime.errors import RilletError, UsageError
from .config.model_config import DualCNNConfig
from .data.token_file import Tokens
from .fallback import ADVICE, Fallback, fallback_for
from .model.dropout_noise import Noise
from .model.dual_cnn import DualCNN
from .model.parts import PARTS
from .own_parts import Parts, build_own
from .part_trial import blamed_part, try_model

__all__ = ["COMPONENTS", "SetupError", "SetupProgress", "set_up_model"]

T = TypeVar("T")

COMPONENTS = ("tokenizer", *PARTS, "codes", "keys")
"""Components in the order of their set-up; the tokenizer comes first, since it reads the corpus."""


class SetupError(RilletError):
    """A part of the model cannot be set up."""


@dataclass(frozen=True)
class SetupProgress:
    """Progress of the set-up.

    Attributes:
        component: The component that is being set up, or that has just become ready.
        done: Components that are ready.
        total: Total number of components.
        detail: Description of the component once it is ready; empty before.
        fraction: Share of the component that is done, for one that takes long.
    """

    component: str
    done: int
    total: int = len(COMPONENTS)
    detail: str = ""
    fraction: float = 0.0


@dataclass
class SetUp:
    """A model that is ready to train.

    Attributes:
        model: The model.
        fallbacks: Replacements for parts that could not be set up.
    """

    model: DualCNN
    fallbacks: list[Fallback]


def set_up_model(
    config: DualCNNConfig,
    tokens: Tokens,
    parts: Parts,
    progress: Callable[[SetupProgress], None] | None = None,
    allow_fallback: bool = False,
    notify: Callable[[str], None] | None = None,
) -> SetUp:
    """Build a model part by part, and fit its codes and keys to the corpus.

    Args:
        config: The configuration.
        tokens: The corpus to be trained on.
        parts: Replacements for parts of the configuration, by name.
        progress: Called before and after each component.
        allow_fallback: Replace a part that fails with a simpler one.
        notify: Called with a sentence for each fallback.

    Raises:
        SetupError: A part fails; the message names it and what to change.
        UsageError: ``parts`` has an unknown name.
    """
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        raise UsageError(f"{', '.join(unknown)}: no such part; choose from {', '.join(PARTS)}")
    fallbacks: list[Fallback] = []
    while True:
        try:
            return SetUp(_Attempt(config, parts, progress).build(tokens), fallbacks)
        except _FailedError as failed:
            cause = failed.cause
            simpler = fallback_for(failed.part, config, _reason(cause)) if allow_fallback else None
            if simpler is None:
                raise SetupError(
                    f"the {failed.part} cannot be set up: {_reason(cause)}; {ADVICE[failed.part]}"
                    + ("" if allow_fallback else ", or allow a fallback")
                ) from cause
            fallbacks.append(simpler)
            if notify is not None:
                notify(str(simpler))
            config = config.replace(**simpler.changes)
            # Do not use the replacement that failed again.
            parts = {name: part for name, part in parts.items() if name != failed.part}


class _FailedError(Exception):
    def __init__(self, part: str, cause: Exception) -> None:
        super().__init__(part)
        self.part, self.cause = part, cause


class _Attempt:
    """One attempt to build the model; raises :class:`_FailedError` for a part that fails."""

    def __init__(
        self, config: DualCNNConfig, parts: Parts, progress: Callable[[SetupProgress], None] | None
    ) -> None:
        self.config, self.parts, self.progress = config, parts, progress
        self.done = COMPONENTS.index("tokenizer") + 1

    def build(self, tokens: Tokens) -> DualCNN:
        noise = Noise()
        built = {
            name: self._run(name, partial(build_own, name, self.config, noise, self.parts))
            for name in PARTS
        }
        try:
            model = DualCNN(self.config, noise, **built)
        except RilletError as error:
            raise _FailedError("model", error) from error
        if own := {name: built[name] for name in PARTS if name in self.parts}:
            try:
                try_model(model)
            except Exception as error:
                raise _FailedError(blamed_part(self.config, own), error) from error
        self._run("codes", partial(model.fit_codes, tokens))
        self._run("keys", partial(model.fit_keys, tokens))
        return model

    def _run(self, component: str, build: Callable[[], T]) -> T:
        """Build one component, and report it before and after."""
        self._report(component)
        try:
            result = build()
        # A part can be the caller's own code, which may raise anything.
        except Exception as error:
            part = "embedder" if component == "codes" else component
            raise _FailedError(part, error) from error
        self.done += 1
        self._report(component, _detail(result))
        return result

    def _report(self, component: str, detail: str = "") -> None:
        if self.progress is not None:
            self.progress(SetupProgress(component, self.done, detail=detail))


def _detail(component: object) -> str:
    if isinstance(component, nn.Module):
        trained = sum(p.numel() for p in component.parameters() if p.requires_grad)
        return f"{type(component).__name__}, {trained:,} trained parameters"
    return "fitted" if component is None else type(component).__name__


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, RilletError) else f"{type(error).__name__}: {error}"

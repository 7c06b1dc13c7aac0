"""Setting up a model part by part: progress, an error that names the part, fallbacks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from ..runtime.errors import RilletError, UsageError
from .config.model_config import DualCNNConfig
from .data.token_file import Tokens
from .fallback import ADVICE, Fallback, fallback_for
from .model.dropout_noise import Noise
from .model.dual_cnn import DualCNN
from .model.parts import PARTS, build_part
from .waves.wave_buffer import RollingWaveBuffer

__all__ = ["COMPONENTS", "SetupError", "SetupProgress", "set_up_model"]

COMPONENTS = ("tokenizer", *PARTS, "buffer", "codes", "keys")
"""What is set up, in order; the tokenizer, with which the corpus is read, before the model."""


class SetupError(RilletError):
    """A part of a model cannot be set up."""


@dataclass(frozen=True)
class SetupProgress:
    """A component that is being set up, or is ready.

    Attributes:
        component: Its name.
        done: Components that are ready.
        total: Components in all.
        detail: What it is, once it is ready; empty before.
        fraction: Share of the component that is done, where that takes long.
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
        buffer: A rolling wave buffer of its sizes.
        fallbacks: What took the place of parts that could not be set up.
    """

    model: DualCNN
    buffer: RollingWaveBuffer
    fallbacks: list[Fallback]


def set_up_model(
    config: DualCNNConfig,
    tokens: Tokens,
    parts: dict[str, nn.Module | Callable[[DualCNNConfig], nn.Module | None]],
    progress: Callable[[SetupProgress], None] | None = None,
    allow_fallback: bool = False,
    notify: Callable[[str], None] | None = None,
) -> SetUp:
    """Build a model part by part and fit what is fitted to the corpus.

    Args:
        config: The configuration.
        tokens: The corpus that will be trained on.
        parts: Parts to take instead of those of the configuration.
        progress: Called before and after each component.
        allow_fallback: Go on with something simpler where a part fails.
        notify: Called with a sentence for each fallback.

    Raises:
        SetupError: A part fails; names it and what to change.
        UsageError: ``parts`` names one that there is not.
    """
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        raise UsageError(f"{', '.join(unknown)}: no such part; there are {', '.join(PARTS)}")
    fallbacks: list[Fallback] = []
    while True:
        try:
            made = _try(config, tokens, parts, progress)
            return SetUp(*made, fallbacks)
        except _FailedError as failed:
            cause = failed.cause
            simpler = fallback_for(failed.part, config, _reason(cause)) if allow_fallback else None
            if simpler is None:
                raise SetupError(
                    f"setting up the {failed.part} failed: {_reason(cause)}; {ADVICE[failed.part]}"
                    + ("" if allow_fallback else ", or allow a fallback")
                ) from cause
            fallbacks.append(simpler)
            if notify is not None:
                notify(str(simpler))
            config = config.replace(**simpler.changes)
            # The part that failed is not tried again in its simpler form.
            parts = {name: part for name, part in parts.items() if name != failed.part}


class _FailedError(Exception):
    def __init__(self, part: str, cause: Exception) -> None:
        super().__init__(part)
        self.part, self.cause = part, cause


def _try(
    config: DualCNNConfig,
    tokens: Tokens,
    parts: dict[str, nn.Module | Callable[[DualCNNConfig], nn.Module | None]],
    progress: Callable[[SetupProgress], None] | None,
) -> tuple[DualCNN, RollingWaveBuffer]:
    done = COMPONENTS.index("tokenizer") + 1

    def run(component: str, build: Callable[[], object]) -> object:
        nonlocal done
        part = {"codes": "embedder"}.get(component, component)
        if progress is not None:
            progress(SetupProgress(component, done))
        try:
            made = build()
        # Whatever a part raises, a user's own part included, is its failure.
        except Exception as error:
            raise _FailedError(part, error) from error
        done += 1
        if progress is not None:
            progress(SetupProgress(component, done, detail=_detail(made)))
        return made

    noise = Noise()
    built: dict[str, nn.Module | None] = {}
    for name in PARTS:
        built[name] = run(name, lambda name=name: _build(name, config, noise, parts))  # type: ignore[misc,assignment]
    buffer = run("buffer", lambda: RollingWaveBuffer.from_config(config))
    assert isinstance(buffer, RollingWaveBuffer)
    try:
        model = DualCNN(config, noise, **built)
    except RilletError as error:
        raise _FailedError("model", error) from error
    run("codes", lambda: model.fit_codes(tokens))
    run("keys", lambda: model.fit_keys(tokens))
    return model, buffer


def _build(
    name: str,
    config: DualCNNConfig,
    noise: Noise,
    parts: dict[str, nn.Module | Callable[[DualCNNConfig], nn.Module | None]],
) -> nn.Module | None:
    if name not in parts:
        return build_part(name, config, noise)
    given = parts[name]
    if isinstance(given, nn.Module) or given is None:
        return given
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return given(config)


def _detail(made: object) -> str:
    if isinstance(made, nn.Module):
        trained = sum(p.numel() for p in made.parameters() if p.requires_grad)
        return f"{type(made).__name__}, {trained:,} trained parameters"
    if isinstance(made, RollingWaveBuffer):
        return f"{made.capacity:,} waves, {made.memory_bytes / 1e6:.1f} MB"
    return "fitted" if made is None else type(made).__name__


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, RilletError) else f"{type(error).__name__}: {error}"

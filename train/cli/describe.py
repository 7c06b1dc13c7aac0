"""Say, before a run begins, what is trained and what it will take."""

from __future__ import annotations

import torch

from ...runtime.cli.terminal import tell
from ..data.streams import Split
from ..pipeline import DualCNNPipeline
from ..timing import forecast

__all__ = ["describe", "tell_cost"]

_WORTH_TELLING = 100
"""Steps from which on a run takes longer than telling how long."""


def describe(pipeline: DualCNNPipeline) -> None:
    """Say what is trained on what."""
    assert pipeline.corpus is not None
    assert pipeline.split is not None
    if earlier := pipeline.training.get("continued_from"):
        tell(
            f"Continuing a model that was trained {earlier.get('steps', 0):,} steps on "
            f"{earlier.get('corpus', 'an unknown text')}"
        )
    tell(
        f"{pipeline.corpus.characters:,} characters, {pipeline.tokenizer.vocab_size} symbols; "
        f"{len(pipeline.split.trained):,} tokens to train on, "
        f"{_validated(pipeline.split):,} to validate, {len(pipeline.split.held_out):,} held out; "
        f"{pipeline.model.parameter_count():,} trained parameters"
    )


def tell_cost(pipeline: DualCNNPipeline, device: torch.device) -> None:
    """Tell in advance what a run of more than a few steps will take."""
    config, texts = pipeline.config, pipeline.split
    assert texts is not None
    if config.training.steps < _WORTH_TELLING:
        return
    cost = forecast(config, config.training.steps, _validated(texts), len(texts.held_out), device)
    tell(f"This takes about {_about(cost.seconds)} here, and {cost.memory / 1e9:.2g} GB of memory.")


def _validated(texts: Split) -> int:
    return 0 if texts.validation is None else texts.validation.numel()


def _about(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"

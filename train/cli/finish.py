"""The end of ``rillet train``: measure, save and summarize."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import torch

from ...runtime.cli.progress import ProgressBar
from ...runtime.cli.terminal import tell
from ...runtime.files import write_atomic
from ..checkpoint import CHECKPOINT_FILE
from ..loop.evaluation import Evaluation
from ..loop.time_limit import TimeLimit
from ..loop.trainer import TrainingResult
from ..pipeline import DualCNNPipeline
from .plots import plot_run
from .reporters import CsvLog

__all__ = ["finish_run"]


def finish_run(
    pipeline: DualCNNPipeline,
    out: Path,
    log: CsvLog,
    result: TrainingResult,
    plot: bool,
    limit: TimeLimit | None,
) -> None:
    """Measure, save and summarize the trained model."""
    held_out = _measure(pipeline, None if limit is None else limit.measured_by)
    pipeline.save(out)
    if plot:
        plot_run(out / "summary.png", pipeline.model, log.rows, _sample(pipeline))
    _summarize(out, pipeline, result, held_out, plot)


def _measure(pipeline: DualCNNPipeline, ends: float | None) -> Evaluation | None:
    """Measure the losses on the held-out text, as one stream from zeros, until a time."""
    assert pipeline.split is not None
    total = min(len(pipeline.split.held_out) - 1, pipeline.config.training.held_out_tokens)
    with ProgressBar("held out", max(1, total)) as bar:
        return pipeline.evaluate(bar.update, ends)


def _sample(pipeline: DualCNNPipeline) -> torch.Tensor:
    """A piece of text to plot the attention on."""
    assert pipeline.split is not None
    held_out = pipeline.split.held_out
    return (held_out if len(held_out) >= 64 else pipeline.split.trained.tokens)[:512].tensor()


def _summarize(
    out: Path,
    pipeline: DualCNNPipeline,
    result: TrainingResult,
    held_out: Evaluation | None,
    plot: bool,
) -> None:
    training: dict[str, Any] = pipeline.training
    rate = result.steps * training["config"]["batch"] * training["config"]["chunk"]
    summary = {**training, "tokens_per_second": rate / max(1e-9, training["seconds"])}
    write_atomic(out / "summary.json", (json.dumps(summary, indent=2) + "\n").encode())
    early = f"; step {result.best_step} was the best" if result.best_step < result.steps else ""
    tell(f"Trained {result.steps} steps in {training['seconds'] / 60:.1f} minutes{early}.")
    if held_out is not None:
        bits = training["held_out"]["bits_per_character"]
        tell(
            f"Held-out loss: {held_out.loss:.4f} nats per token ({bits:.3f} bits per character), "
            f"{held_out.without_memory:.4f} without the memory, over {held_out.tokens:,} tokens "
            "in one stream."
        )
        if training.get("held_out_seen"):
            tell("The run that this one continues may have trained on this held-out text.")
    if plot:
        tell(f"Plot: {out / 'summary.png'}")
    tell(f"Checkpoint: {out / CHECKPOINT_FILE}")
    tell(f"Next: rillet export {shlex.quote(str(out))} --out BUNDLE")

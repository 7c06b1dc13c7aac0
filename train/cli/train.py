"""``rillet train``: train a model on a text."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch

from ...runtime.cli.progress import ProgressBar
from ...runtime.errors import UsageError
from ...runtime.files import write_atomic
from ..auto_config import infer
from ..checkpoint import CHECKPOINT_FILE
from ..config.model_config import DualCNNConfig
from ..config.presets import PRESETS
from ..data.corpus import BUILTIN, Corpus
from ..data.tokenizers import TOKENIZERS
from ..loop.distributed import Group, start_group
from ..loop.evaluation import Evaluation
from ..loop.progress import TrainingProgress
from ..loop.resume import STATE_FILE
from ..loop.trainer import TrainingResult
from ..pipeline import DualCNNPipeline
from ..setup import SetupProgress
from .plots import can_plot, plot_run
from .reporters import CsvLog, TensorBoardLog, TerminalLog

__all__ = ["train_command"]


@click.command("train")
@click.option(
    "--corpus",
    "corpora",
    required=True,
    multiple=True,
    metavar="FILE",
    help="A UTF-8 text file, or a folder of text files; repeat for more. "
    f"{BUILTIN} is a text that ships with Python; tinyshakespeare is downloaded.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Folder for the checkpoint; created if it does not exist.",
)
@click.option(
    "--preset",
    type=click.Choice([*PRESETS, "auto"]),
    default="nano",
    show_default=True,
    help="Size of the model; auto chooses by corpus and --budget, and says why.",
)
@click.option(
    "--budget",
    metavar="LIMIT",
    help="With --preset auto: the time or size allowed, such as 30min or 2MB.",
)
@click.option("--tokenizer", type=click.Choice(TOKENIZERS), help="Default: auto.")
@click.option("--validation", metavar="FILE", help="Hold out this text, not the corpus's end.")
@click.option("--steps", type=click.IntRange(1), metavar="N", help="Training steps.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, metavar="S")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a setting of the model or of training; repeat for more.",
)
@click.option("--resume", is_flag=True, help="Resume the run in RUN where it stopped.")
@click.option("--overwrite", is_flag=True, help="Replace an existing checkpoint.")
@click.option("--allow-fallback", is_flag=True, help="Replace a failing part with a simpler one.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto")
@click.option("--threads", type=click.IntRange(1), metavar="N", help="CPU threads; default: all.")
@click.option("--tensorboard", is_flag=True, help="Write TensorBoard event files to RUN.")
@click.option("--plot/--no-plot", default=True, help="Plot RUN/summary.png at the end.")
def train_command(
    corpora: tuple[str, ...],
    out: Path,
    preset: str,
    budget: str | None,
    tokenizer: str | None,
    validation: str | None,
    steps: int | None,
    seed: int,
    settings: tuple[str, ...],
    resume: bool,
    overwrite: bool,
    allow_fallback: bool,
    device: str,
    threads: int | None,
    tensorboard: bool,
    plot: bool,
) -> None:
    """Train a model on a text and write a checkpoint to RUN."""
    if budget is not None and preset != "auto":
        raise UsageError(f"--budget {budget} needs --preset auto, but the preset is {preset}")
    if (out / CHECKPOINT_FILE).exists() and not (overwrite or resume):
        raise UsageError(
            f"{out} already holds a checkpoint; choose another --out, or use --resume to continue "
            "it or --overwrite to replace it"
        )
    if plot and not can_plot():
        raise UsageError("the plot at the end needs matplotlib; install it, or use --no-plot")
    if threads is not None:
        torch.set_num_threads(threads)
    corpus = Corpus(corpora)
    changes = _settings(settings, seed, steps, tokenizer)
    if changes.get("tokenizer") == "byte":
        corpus = corpus.as_bytes()
    group = start_group(device)
    try:
        if preset == "auto" and group.size > 1:
            raise UsageError(
                "--preset auto measures this machine, and every process would choose for itself; "
                "run it once with one process, and pass its choice with --preset and --set"
            )
        config = _configure(preset, budget, corpus, changes)
        pipeline = _set_up(config, corpus, out, validation, allow_fallback, group)
        pipeline.training["preset"] = preset
        if group.leads:
            _describe(pipeline)
        log = CsvLog(out, resume)
        result = _train(pipeline, out, log, resume, tensorboard, group)
        if group.leads:
            _finish(pipeline, out, log, result, plot)
    finally:
        group.finish()


def _settings(
    settings: tuple[str, ...], seed: int, steps: int | None, tokenizer: str | None
) -> dict[str, str]:
    """Settings changed on the command line, by name."""
    changes = {"seed": str(seed)}
    if steps is not None:
        changes["steps"] = str(steps)
    if tokenizer is not None:
        changes["tokenizer"] = tokenizer
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise UsageError(f"--set {setting} is not KEY=VALUE; write, for example, dropout=0.2")
        changes[key] = value
    return changes


def _configure(
    preset: str, budget: str | None, corpus: Corpus, changes: dict[str, str]
) -> DualCNNConfig:
    """Build the configuration from the preset, or for the corpus, with the user's changes."""
    if preset != "auto":
        return PRESETS[preset].replace_text(changes)
    config = infer(corpus, budget)
    for reason in config.reasons:
        click.echo(f"Chosen: {reason}")
    return config.replace_text(changes)


def _set_up(
    config: DualCNNConfig,
    corpus: Corpus,
    out: Path,
    validation: str | None,
    allow_fallback: bool,
    group: Group,
) -> DualCNNPipeline:
    """Set up the pipeline, with a progress bar over its components."""
    # Processes share the run's folder, but each keeps its own copy of the tokens.
    tokens = out / "tokens" if group.size == 1 else out / "tokens" / str(group.rank)
    with ProgressBar("setting up") as bar:

        def show(progress: SetupProgress) -> None:
            share = f", {progress.fraction:.0%}" if progress.fraction else ""
            bar.show(progress.done, progress.total, progress.component + share)

        def note(text: str) -> None:
            bar.clear()
            click.echo(f"Note: {text}", err=True)

        return DualCNNPipeline.fit_and_initialize(
            corpus,
            config,
            folder=tokens,
            validation=validation,
            progress=show if group.leads else None,
            allow_fallback=allow_fallback,
            notify=note if group.leads else None,
        )


def _describe(pipeline: DualCNNPipeline) -> None:
    assert pipeline.corpus is not None
    assert pipeline.split is not None
    validated = 0 if pipeline.split.validation is None else pipeline.split.validation.numel()
    click.echo(
        f"{pipeline.corpus.characters:,} characters, {pipeline.tokenizer.vocab_size} symbols; "
        f"{len(pipeline.split.trained):,} tokens to train on, {validated:,} to validate, "
        f"{len(pipeline.split.held_out):,} held out; "
        f"{pipeline.model.parameter_count():,} trained parameters"
    )


def _train(
    pipeline: DualCNNPipeline,
    out: Path,
    log: CsvLog,
    resume: bool,
    tensorboard: bool,
    group: Group,
) -> TrainingResult:
    """Train, and report progress if this process leads."""
    terminal = TerminalLog(pipeline.config.training.steps)
    board = TensorBoardLog(out / "tensorboard") if tensorboard and group.leads else None
    reporters: list[Callable[[TrainingProgress], None]] = [log, terminal] if group.leads else []
    if board is not None:
        reporters.append(board)

    def report(progress: TrainingProgress) -> None:
        for reporter in reporters:
            reporter(progress)

    try:
        # The command has checked what may be replaced.
        return pipeline.train(
            out, report, resume=resume, overwrite=True, group=group, notify=terminal.note
        )
    except KeyboardInterrupt:
        terminal.close()
        if group.leads:
            log.write()
            click.echo(
                f"\nThe run is saved in {out / STATE_FILE}: continue it with --resume, or export "
                "what it has learned so far",
                err=True,
            )
        raise click.Abort from None
    finally:
        terminal.close()
        if board is not None:
            board.close()


def _finish(
    pipeline: DualCNNPipeline, out: Path, log: CsvLog, result: TrainingResult, plot: bool
) -> None:
    """Measure, save and summarize the trained model."""
    log.write()
    held_out = _measure(pipeline)
    pipeline.save(out)
    if plot:
        plot_run(out / "summary.png", pipeline.model, log.rows, _sample(pipeline))
    _summarize(out, pipeline, result, held_out, plot)


def _measure(pipeline: DualCNNPipeline) -> Evaluation | None:
    """Measure the losses on the held-out text, as one stream from zeros."""
    assert pipeline.split is not None
    total = min(len(pipeline.split.held_out) - 1, pipeline.config.training.held_out_tokens)
    with ProgressBar("held out", max(1, total)) as bar:
        return pipeline.evaluate(bar.update)


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
    click.echo(f"Trained {result.steps} steps in {training['seconds'] / 60:.1f} minutes{early}.")
    if held_out is not None:
        bits = held_out.loss / math.log(2)
        click.echo(
            f"Held-out loss: {held_out.loss:.4f} nats per token ({bits:.3f} bits), "
            f"{held_out.without_memory:.4f} without the memory, over {held_out.tokens:,} tokens "
            "in one stream."
        )
    if plot:
        click.echo(f"Plot: {out / 'summary.png'}")
    click.echo(f"Checkpoint: {out / CHECKPOINT_FILE}")
    click.echo(f"Next: rillet export {shlex.quote(str(out))} --out BUNDLE")

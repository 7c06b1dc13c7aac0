"""``rillet train``: from text to a checkpoint."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch

from ...runtime.errors import UsageError
from ...runtime.files import write_atomic
from ..checkpoint import CHECKPOINT_FILE
from ..config.auto import infer
from ..config.model_config import DualCNNConfig
from ..config.presets import PRESETS
from ..data.corpus import BUILTIN, Corpus
from ..data.tokenizers import TOKENIZERS
from ..loop.distributed import Group, start_group
from ..loop.evaluate import Evaluation
from ..loop.progress import TrainingProgress, progress_bar
from ..loop.resume import STATE_FILE
from ..loop.trainer import TrainingResult
from ..pipeline import DualCNNPipeline
from ..setup import SetupProgress
from .plots import can_plot, plot_run
from .reporters import CsvLog, ProgressBar, TensorBoardLog

__all__ = ["train"]


@click.command()
@click.option(
    "--corpus", "corpora", required=True, multiple=True, metavar="FILE",
    help=f"A UTF-8 text file or a folder of them; repeat for more. {BUILTIN} is a text that "
    "every Python brings along; tinyshakespeare is fetched.",
)  # fmt: skip
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), metavar="RUN",
    help="Folder for the checkpoint; made if it does not exist.",
)  # fmt: skip
@click.option(
    "--preset", type=click.Choice([*PRESETS, "auto"]), default="nano", show_default=True,
    help="Size of the model; auto chooses by corpus and --budget, and says why.",
)  # fmt: skip
@click.option(
    "--budget", metavar="LIMIT",
    help="With --preset auto: the time or the size allowed, such as 30min or 2MB.",
)  # fmt: skip
@click.option("--tokenizer", type=click.Choice(TOKENIZERS), help="Default: auto.")
@click.option("--validation", metavar="FILE", help="Hold out this text, not the corpus's end.")
@click.option("--steps", type=click.IntRange(1), metavar="N", help="Training steps.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, metavar="S")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE",
    help="Change a setting of the model or of training; repeat for more.",
)  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on with the run in RUN where it stopped.")
@click.option("--overwrite", is_flag=True, help="Replace a checkpoint that is there already.")
@click.option("--allow-fallback", is_flag=True, help="Go on without a part that fails; say so.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto")
@click.option("--threads", type=click.IntRange(1), metavar="N", help="CPU threads; default: all.")
@click.option("--tensorboard", is_flag=True, help="Write event files for TensorBoard to RUN.")
@click.option("--plot/--no-plot", default=True, help="Draw RUN/summary.png at the end.")
def train(
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
        raise UsageError(f"--budget {budget} needs --preset auto, and the preset is {preset}")
    if (out / CHECKPOINT_FILE).exists() and not (overwrite or resume):
        raise UsageError(
            f"{out} already holds a checkpoint; choose another --out, or give --resume to go on "
            "with it, or --overwrite"
        )
    if plot and not can_plot():
        raise UsageError("the picture at the end needs matplotlib; install it, or give --no-plot")
    if threads is not None:
        torch.set_num_threads(threads)
    corpus = Corpus(corpora)
    changes = _settings(settings, seed, steps, tokenizer)
    group = start_group(device)
    try:
        if preset == "auto" and group.size > 1:
            raise UsageError(
                "--preset auto measures, and each process would choose for itself; run it once "
                "with one process and give what it chose with --preset and --set"
            )
        config = _configure(preset, budget, corpus, changes)
        _train(
            config,
            corpus,
            out,
            validation,
            resume,
            allow_fallback,
            tensorboard,
            plot,
            group,
            preset,
        )
    finally:
        group.finish()


def _train(
    config: DualCNNConfig,
    corpus: Corpus,
    out: Path,
    validation: str | None,
    resume: bool,
    allow_fallback: bool,
    tensorboard: bool,
    plot: bool,
    group: Group,
    preset: str,
) -> None:
    # The processes share a folder; each keeps the corpus's tokens in a folder of its own.
    tokens = out / "tokens" if group.size == 1 else out / "tokens" / str(group.rank)
    speaks = group.leads
    with _SetupDisplay(speaks) as display:
        pipeline = DualCNNPipeline.fit_and_initialize(
            corpus,
            config,
            folder=tokens,
            validation=validation,
            progress=display.update,
            allow_fallback=allow_fallback,
            notify=display.note,
        )
    pipeline.training["preset"] = preset
    _describe(pipeline, speaks)
    log, bar = CsvLog(out, resume), ProgressBar(pipeline.config.training.steps)
    board = TensorBoardLog(out / "tensorboard") if tensorboard and speaks else None
    reporters: list[Callable[[TrainingProgress], None]] = [log, bar] if speaks else []
    if board is not None:
        reporters.append(board)

    def report(progress: TrainingProgress) -> None:
        for reporter in reporters:
            reporter(progress)

    try:
        result = pipeline.train(out, report, resume=resume, group=group, notify=bar.note)
    except KeyboardInterrupt:
        bar.close()
        if speaks:
            log.write()
            click.echo(
                f"\nThe run is kept in {out / STATE_FILE}: go on with --resume, or export "
                "what it has learnt so far",
                err=True,
            )
        raise click.Abort from None
    finally:
        bar.close()
        if board is not None:
            board.close()
    if not speaks:
        return
    log.write()
    held_out = _measure(pipeline)
    pipeline.save(out)
    if plot:
        plot_run(out / "summary.png", pipeline.model, log.rows, _sample(pipeline))
    _summarise(out, pipeline, result, held_out, plot)


def _settings(
    settings: tuple[str, ...], seed: int, steps: int | None, tokenizer: str | None
) -> dict[str, str]:
    """What the command line changes, by the name of the setting."""
    changes = {"seed": str(seed)}
    if steps is not None:
        changes["steps"] = str(steps)
    if tokenizer is not None:
        changes["tokenizer"] = tokenizer
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise UsageError(f"--set {setting}: give it as KEY=VALUE, such as --set dropout=0.2")
        changes[key] = value
    return changes


def _configure(
    preset: str, budget: str | None, corpus: Corpus, changes: dict[str, str]
) -> DualCNNConfig:
    """The preset, or what suits the corpus, with the command line's changes."""
    if preset != "auto":
        return PRESETS[preset].replace_text(changes)
    config = infer(corpus, budget)
    for reason in config.reasons:
        click.echo(f"Chosen: {reason}")
    return config.replace_text(changes)


class _SetupDisplay:
    """A bar over the components that are being set up."""

    def __init__(self, speaks: bool) -> None:
        self.bar = progress_bar(1, "part", "setting up") if speaks else None

    def __enter__(self) -> _SetupDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def update(self, progress: SetupProgress) -> None:
        if self.bar is None:
            return
        self.bar.total = progress.total
        part = f", {progress.fraction:.0%}" if progress.fraction else ""
        self.bar.set_postfix_str(progress.component + part, refresh=False)
        self.bar.update(progress.done - self.bar.n)

    def note(self, text: str) -> None:
        if self.bar is not None:
            click.echo(f"Note: {text}", err=True)


def _describe(pipeline: DualCNNPipeline, speaks: bool) -> None:
    assert pipeline.corpus is not None
    assert pipeline.split is not None
    if not speaks:
        return
    looked_at = 0 if pipeline.split.validation is None else pipeline.split.validation.numel()
    click.echo(
        f"{pipeline.corpus.characters:,} characters, {pipeline.tokenizer.vocab_size} symbols; "
        f"{len(pipeline.split.trained):,} tokens to train on, {looked_at:,} to validate, "
        f"{len(pipeline.split.held_out):,} held out; "
        f"{pipeline.model.parameter_count():,} trained parameters"
    )


def _measure(pipeline: DualCNNPipeline) -> Evaluation | None:
    """Losses on the held-out text, as one stream from zeros."""
    assert pipeline.split is not None
    total = min(len(pipeline.split.held_out) - 1, pipeline.config.training.held_out_tokens)
    with progress_bar(max(1, total), "token", "held out") as bar:
        return pipeline.evaluate(bar.update)


def _sample(pipeline: DualCNNPipeline) -> torch.Tensor:
    """A piece of text to draw the attention on."""
    assert pipeline.split is not None
    held_out = pipeline.split.held_out
    return (held_out if len(held_out) >= 64 else pipeline.split.trained.tokens)[:512].tensor()


def _summarise(
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
        click.echo(f"Picture: {out / 'summary.png'}")
    click.echo(f"Checkpoint: {out / CHECKPOINT_FILE}")
    click.echo(f"Next: rillet export {out} --out BUNDLE")

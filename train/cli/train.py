"""``rillet train``: train a model on a text."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import torch

from ...runtime.cli.progress import ProgressBar
from ...runtime.cli.terminal import tell
from ...runtime.errors import UsageError
from ..auto_config import Choice, choose, limit_for
from ..budget import Budget
from ..checkpoint import CHECKPOINT_FILE, Checkpoint, load_checkpoint
from ..config.fields import LARGEST_SEED
from ..config.model_config import DualCNNConfig, parse_settings
from ..config.presets import PRESETS
from ..continuing import continued_config
from ..data.corpus import Corpus
from ..data.named_texts import BUILTIN
from ..data.pipes import is_pipe, pipe_name
from ..data.text_sources import recorded_names
from ..data.tokenizers import TOKENIZERS
from ..loop.distributed import Group, start_group
from ..loop.progress import TrainingProgress
from ..loop.resume import STATE_FILE, run_config
from ..loop.time_limit import TimeLimit
from ..loop.trainer import TrainingResult
from ..pipeline import DualCNNPipeline
from ..setup import SetupProgress
from .describe import describe, tell_cost
from .finish import finish_run
from .plots import can_plot, load_plotting
from .reporters import CsvLog, TensorBoardLog, TerminalLog

__all__ = ["train_command"]


@click.command("train")
@click.option(
    "--corpus",
    "corpora",
    required=True,
    multiple=True,
    metavar="FILE",
    help="A UTF-8 text file, a folder of text files, or - for standard input; repeat for more. "
    f"{BUILTIN} is a text that ships with Python; tinyshakespeare is downloaded. Parquet files, "
    "saved data sets and hf:NAME need rillet[datasets].",
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
    help="Size of the model; auto chooses by corpus and --budget, and says why. "
    "Default: nano, or auto with --budget.",
)
@click.option(
    "--budget",
    metavar="LIMIT",
    help="The time from text to measured model, or the size of the bundle: 1h30min, 5MB, or both "
    "with a comma.",
)
@click.option("--tokenizer", type=click.Choice(TOKENIZERS), help="Default: auto.")
@click.option("--validation", metavar="FILE", help="Hold out this text, not the corpus's end.")
@click.option("--steps", type=click.IntRange(1), metavar="N", help="Training steps.")
@click.option(
    "--seed",
    type=click.IntRange(0, LARGEST_SEED),
    metavar="S",
    help="Default: 0, or that of the run to continue.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a setting of the model or of training; repeat for more.",
)
@click.option("--resume", is_flag=True, help="Resume the run in RUN where it stopped.")
@click.option(
    "--continue-from",
    type=click.Path(path_type=Path),
    metavar="RUN0",
    help="Train the model of this run or bundle further, in RUN, on the same text or another.",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing checkpoint.")
@click.option("--allow-fallback", is_flag=True, help="Replace a failing part with a simpler one.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto")
@click.option(
    "--sample-every",
    type=click.IntRange(1),
    metavar="N",
    help="Write a text every N steps; the result stays the same.",
)
@click.option("--threads", type=click.IntRange(1), metavar="N", help="CPU threads; default: all.")
@click.option("--tensorboard", is_flag=True, help="Write TensorBoard event files to RUN.")
@click.option("--plot/--no-plot", default=True, help="Plot RUN/summary.png at the end.")
@click.pass_obj
def train_command(
    started: float | None,
    corpora: tuple[str, ...],
    out: Path,
    preset: str | None,
    budget: str | None,
    tokenizer: str | None,
    validation: str | None,
    steps: int | None,
    seed: int | None,
    settings: tuple[str, ...],
    resume: bool,
    continue_from: Path | None,
    overwrite: bool,
    allow_fallback: bool,
    device: str,
    sample_every: int | None,
    threads: int | None,
    tensorboard: bool,
    plot: bool,
) -> None:
    """Train a model on a text and write a checkpoint to RUN."""
    if continue_from is not None:
        _check_continuing(continue_from, out, tokenizer, preset, budget, allow_fallback)
    elif seed is None:
        seed = 0
    started = time.monotonic() if started is None else started
    limits = Budget.parse(budget)
    preset = preset or ("nano" if budget is None else "auto")
    chosen = preset == "auto" or budget is not None
    if (out / CHECKPOINT_FILE).exists() and not (overwrite or resume):
        raise UsageError(
            f"{out} already holds a checkpoint; choose another --out, or use --resume to continue "
            "it or --overwrite to replace it"
        )
    if plot and not can_plot():
        raise UsageError("the plot at the end needs matplotlib; install it, or use --no-plot")
    if plot and limits.seconds is not None:
        load_plotting()  # its seconds count before the steps are planned
    if threads is not None:
        torch.set_num_threads(threads)
    changes = _settings(settings, seed, steps, tokenizer)
    group = start_group(device)
    try:
        if chosen and group.size > 1:
            raise UsageError(
                "--preset auto and --budget measure this machine, and every process would choose "
                "for itself; run it once with one process, and pass its choice with --preset and "
                "--set"
            )
        _check_pipes(group, (*corpora, validation))
        corpus = Corpus(corpora, spool=out)
        if changes.get("tokenizer") == "byte":
            corpus = corpus.as_bytes()
        earlier = None if continue_from is None else load_checkpoint(continue_from)
        if earlier is not None:
            config = continued_config(earlier).replace_text(changes)
            choice = Choice(config, None, config.training.steps, None)
        else:
            choice = _configure(
                preset, limits, corpus, changes, started, out if resume else None, group
            )
        pipeline = _set_up(choice.config, corpus, out, validation, allow_fallback, group, earlier)
        pipeline.training["given"] = _given(corpora, validation, threads)
        if choice.preset is not None:
            pipeline.training["preset"] = choice.preset
        limit = (
            None
            if limits.seconds is None
            else limit_for(choice, limits.seconds, started, group.device)
        )
        if group.leads:
            describe(pipeline)
            if limit is None and not resume and group.size == 1:
                tell_cost(pipeline, group.device)
        log = CsvLog(out, resume)
        result = _train(pipeline, out, log, resume, tensorboard, group, limit, sample_every or 0)
        if group.leads:
            if limit is not None:
                pipeline.training["budget"] = {
                    "seconds": limits.seconds,
                    "corrections": limit.corrections,
                }
            finish_run(pipeline, out, log, result, plot, limit)
    finally:
        group.finish()


def _check_continuing(
    run: Path,
    out: Path,
    tokenizer: str | None,
    preset: str | None,
    budget: str | None,
    allow_fallback: bool,
) -> None:
    """Refuse what the run to continue has decided."""
    given = {"--preset": preset, "--tokenizer": tokenizer, "--budget": budget}
    given["--allow-fallback"] = "yes" if allow_fallback else None
    for option in (name for name, value in given.items() if value is not None):
        raise UsageError(
            f"{option} does not go with --continue-from: the model and its tokenizer are those of "
            f"{run}; leave it out"
        )
    if run.resolve() in (out.resolve(), (out / CHECKPOINT_FILE).resolve()):
        raise UsageError(
            f"--out is the run to continue, {run}, which is kept; choose another --out"
        )


def _check_pipes(group: Group, sources: Sequence[str | None]) -> None:
    """Refuse a pipe that several processes would share: each would read a part of it."""
    for source in sources:
        if group.size > 1 and source is not None and is_pipe(source):
            raise UsageError(
                f"{pipe_name(source)} can be read by one process, but there are {group.size}; "
                "write the text to a file first"
            )


def _given(corpora: tuple[str, ...], validation: str | None, threads: int | None) -> dict[str, Any]:
    """What the record needs beside the settings, to repeat the command."""
    names = recorded_names(corpora if validation is None else (*corpora, validation))
    given: dict[str, Any] = {"corpus": names[: len(corpora)]}
    if validation is not None:
        given["validation"] = names[-1]
    if threads is not None:
        given["threads"] = threads
    return given


def _settings(
    settings: tuple[str, ...], seed: int | None, steps: int | None, tokenizer: str | None
) -> dict[str, str]:
    """Settings changed on the command line, by name."""
    changes = {}
    if seed is not None:
        changes["seed"] = str(seed)
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
    preset: str,
    limits: Budget,
    corpus: Corpus,
    changes: dict[str, str],
    started: float,
    run: Path | None,
    group: Group,
) -> Choice:
    """Take the configuration of the preset, or choose one, with the user's changes.

    A run that is resumed keeps what was chosen for it: another measurement, another choice.
    """
    settings = parse_settings(changes)
    if preset != "auto" and limits == Budget():
        config = PRESETS[preset].replace(**settings)
        return Choice(config, preset, config.training.steps, None)
    if run is not None:
        kept = {name: value for name, value in settings.items() if name != "steps"}
        config = run_config(run).replace(**kept)
        return Choice(config, _preset_of(run, preset), config.training.steps, None)
    named = None if preset == "auto" else preset
    choice = choose(corpus, limits, settings, named, started, group.device)
    for reason in choice.config.reasons:
        tell(f"Chosen: {reason}")
    return choice


def _preset_of(run: Path, preset: str) -> str:
    """The preset that was chosen for a run; the given one if it has no checkpoint yet."""
    if not (run / CHECKPOINT_FILE).is_file():
        return preset
    return str(load_checkpoint(run).training.get("preset", preset))


def _set_up(
    config: DualCNNConfig,
    corpus: Corpus,
    out: Path,
    validation: str | None,
    allow_fallback: bool,
    group: Group,
    earlier: Checkpoint | None,
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
            tell(f"Note: {text}", err=True)

        if earlier is not None:
            return DualCNNPipeline.continue_from(
                earlier,
                corpus,
                config,
                folder=tokens,
                validation=validation,
                progress=show if group.leads else None,
                notify=note if group.leads else None,
            )
        return DualCNNPipeline.fit_and_initialize(
            corpus,
            config,
            folder=tokens,
            validation=validation,
            progress=show if group.leads else None,
            allow_fallback=allow_fallback,
            notify=note if group.leads else None,
        )


def _train(
    pipeline: DualCNNPipeline,
    out: Path,
    log: CsvLog,
    resume: bool,
    tensorboard: bool,
    group: Group,
    limit: TimeLimit | None,
    sample_every: int,
) -> TrainingResult:
    """Train, and report progress if this process leads."""
    terminal = TerminalLog(pipeline.config.training.steps)
    board = TensorBoardLog(out / "tensorboard", resume) if tensorboard and group.leads else None
    reporters: list[Callable[[TrainingProgress], None]] = [log, terminal] if group.leads else []
    if board is not None:
        reporters.append(board)

    def report(progress: TrainingProgress) -> None:
        for reporter in reporters:
            reporter(progress)

    try:
        # The command has checked what may be replaced.
        return pipeline.train(
            out,
            report,
            resume=resume,
            overwrite=True,
            group=group,
            notify=terminal.note,
            limit=limit,
            on_sample=terminal.sample,
            sample_every=sample_every,
        )
    except KeyboardInterrupt:
        terminal.close()
        if group.leads:
            tell(
                f"\nThe run is saved in {out / STATE_FILE}: continue it with --resume, or export "
                "what it has learned so far",
                err=True,
            )
        raise click.Abort from None
    finally:
        terminal.close()
        if board is not None:
            board.close()
        log.write()

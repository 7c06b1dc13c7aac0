"""``rillet train``: from a text file to a checkpoint."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from pathlib import Path
from typing import Any

import click
import torch

from ..runtime.errors import ConfigError, UsageError
from ..runtime.files import sha256_bytes, write_atomic
from .checkpoint import CHECKPOINT_FILE, Checkpoint, save_checkpoint
from .config import PRESETS, DualCNNConfig
from .corpus import BUILTIN, read_corpus
from .evaluate import Evaluation, evaluate
from .model import DualCNN
from .progress import progress_bar
from .tokenizers import TOKENIZERS, make_tokenizer
from .trainer import DualCNNTrainer, TrainingProgress
from .training_config import TrainingConfig

__all__ = ["train"]


@click.command()
@click.option(
    "--corpus", required=True, metavar="FILE",
    help=f"A UTF-8 text file; {BUILTIN} is a text that every Python brings along.",
)  # fmt: skip
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), metavar="RUN",
    help="Folder for the checkpoint; made if it does not exist.",
)  # fmt: skip
@click.option("--preset", type=click.Choice(list(PRESETS)), default="nano", show_default=True)
@click.option("--tokenizer", type=click.Choice(TOKENIZERS), default="auto", show_default=True)
@click.option("--steps", type=click.IntRange(1), metavar="N", help="Training steps.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, metavar="S")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE",
    help="Change a setting of the model or of training; repeat for more.",
)  # fmt: skip
@click.option("--threads", type=click.IntRange(1), metavar="N", help="CPU threads; default: all.")
@click.option("--overwrite", is_flag=True, help="Replace a checkpoint that is there already.")
def train(
    corpus: str,
    out: Path,
    preset: str,
    tokenizer: str,
    steps: int | None,
    seed: int,
    settings: tuple[str, ...],
    threads: int | None,
    overwrite: bool,
) -> None:
    """Train a model on a text and write a checkpoint to RUN."""
    model_config, config = _configure(preset, seed, steps, settings)
    if (out / CHECKPOINT_FILE).exists() and not overwrite:
        raise UsageError(
            f"{out} already holds a checkpoint; choose another --out, or give --overwrite"
        )
    if threads is not None:
        torch.set_num_threads(threads)
    text = read_corpus(corpus)
    encoder = make_tokenizer(text, tokenizer)
    tokens = torch.tensor(encoder.encode(text))
    config = _fit_batch(config, len(tokens))
    trained, validation, held_out = _split(tokens, config)
    model = DualCNN(model_config.replace(vocab_size=encoder.vocab_size)).fit(trained)
    click.echo(
        f"{len(text):,} characters, {encoder.vocab_size} symbols; {len(trained):,} tokens to "
        f"train on, {len(validation):,} to validate, {len(held_out):,} held out; "
        f"{model.parameter_count():,} trained parameters"
    )
    provenance: dict[str, Any] = {
        "corpus": Path(corpus).name,
        "corpus_sha256": sha256_bytes(text.encode("utf-8", "surrogatepass")),
        "characters": len(text),
        "trained_tokens": len(trained),
        "preset": preset,
        "parameters": model.parameter_count(),
        "config": config.to_dict(),
        "torch": torch.__version__,
    }
    out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with _Display(config.steps, out, Checkpoint(model, encoder, provenance)) as display:
        try:
            DualCNNTrainer(model, config).train(trained, validation, display.update)
        except KeyboardInterrupt:
            display.close()
            done = provenance.get("steps", 0)
            if done:
                display.save()
                click.echo(f"\nCheckpoint after {done} steps: {out / CHECKPOINT_FILE}", err=True)
            raise click.Abort from None
    seconds = time.monotonic() - started
    if len(held_out) > 1:
        provenance["held_out"] = dataclasses.asdict(_measure(model, held_out))
    display.save()
    _summarise(out, provenance, seconds)


def _configure(
    preset: str, seed: int, steps: int | None, settings: tuple[str, ...]
) -> tuple[DualCNNConfig, TrainingConfig]:
    """The preset with the command line's changes."""
    model, config = PRESETS[preset], TrainingConfig()
    changes: dict[str, dict[str, Any]] = {"model": {"seed": seed}, "training": {"seed": seed}}
    if steps is not None:
        changes["training"]["steps"] = steps
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise UsageError(f"--set {setting}: give it as KEY=VALUE, such as --set dropout=0.2")
        owners = [
            (name, target.to_dict()[key])
            for name, target in (("model", model), ("training", config))
            if key in target.to_dict()
        ]
        for name, default in owners:
            changes[name][key] = _parse(key, value, type(default))
        if not owners:
            known = sorted({*model.to_dict(), *config.to_dict()})
            raise UsageError(f"--set {setting}: no such setting; there are {', '.join(known)}")
    return model.replace(**changes["model"]), config.replace(**changes["training"])


def _parse(key: str, value: str, kind: type) -> Any:
    try:
        number = kind(value)
    except ValueError:
        number = math.nan
    if isinstance(number, float) and not math.isfinite(number):
        wanted = "a whole number" if kind is int else "a number"
        raise ConfigError(f"{key} is {value!r}; it must be {wanted}")
    return number


def _fit_batch(config: TrainingConfig, tokens: int) -> TrainingConfig:
    """A smaller batch for a small corpus, so that each stream has a chunk to itself."""
    trained = int(int(tokens * (1 - config.held_out)) * (1 - config.validation))
    rows = max(1, min(config.batch, trained // config.chunk))
    if rows < config.batch:
        click.echo(
            f"Note: the corpus has room for {rows} streams of {config.chunk} tokens; "
            f"training with batch {rows} instead of {config.batch}",
            err=True,
        )
    return config.replace(batch=rows)


def _split(
    tokens: torch.Tensor, config: TrainingConfig
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The text to train on, to validate on, and to hold out, in the order of the corpus."""
    first = int(len(tokens) * (1 - config.held_out))
    seen = int(first * (1 - config.validation))
    return tokens[:seen], tokens[seen:first], tokens[first:]


class _Display:
    """Shows progress, logs it, and saves a checkpoint whenever validation is measured."""

    def __init__(self, steps: int, out: Path, checkpoint: Checkpoint) -> None:
        self.bar = progress_bar(steps, "step", "training")
        self.out, self.checkpoint = out, checkpoint
        self.log = ["step,loss,first_loss,second_loss,validation,validation_without_memory"]

    def __enter__(self) -> _Display:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.bar.close()

    def update(self, progress: TrainingProgress) -> None:
        """Show one step."""
        self.checkpoint.training["steps"] = progress.step
        self.bar.set_postfix_str(
            f"first CNN {progress.first_loss:.3f}, second {progress.second_loss:.3f}, "
            f"{progress.tokens_per_second / 1000:.1f}k tokens/s",
            refresh=False,
        )
        self.bar.update()
        seen = progress.validation
        losses = (progress.loss, progress.first_loss, progress.second_loss)
        shown = [str(progress.step), *(f"{loss:.5f}" for loss in losses)]
        if seen is None:
            self.log.append(",".join([*shown, "", ""]))
            return
        self.log.append(",".join([*shown, f"{seen.loss:.5f}", f"{seen.without_memory:.5f}"]))
        self.bar.write(
            f"step {progress.step}: validation {seen.loss:.4f} nats per token, "
            f"{seen.without_memory:.4f} without the memory"
        )
        self.checkpoint.training["validation"] = dataclasses.asdict(seen)
        self.save()

    def save(self) -> None:
        """Write the checkpoint and the log."""
        save_checkpoint(self.out, self.checkpoint)
        write_atomic(self.out / "log.csv", ("\n".join(self.log) + "\n").encode())


def _measure(model: DualCNN, held_out: torch.Tensor) -> Evaluation:
    """Losses on the held-out text, as one stream from zeros."""
    with progress_bar(len(held_out) - 1, "token", "held out") as bar:
        return evaluate(model, held_out, progress=bar.update)


def _summarise(out: Path, provenance: dict[str, Any], seconds: float) -> None:
    rate = provenance["steps"] * provenance["config"]["batch"] * provenance["config"]["chunk"]
    summary = {**provenance, "seconds": round(seconds, 1), "tokens_per_second": rate / seconds}
    write_atomic(out / "summary.json", (json.dumps(summary, indent=2) + "\n").encode())
    click.echo(f"Trained {provenance['steps']} steps in {seconds / 60:.1f} minutes.")
    held_out = provenance.get("held_out")
    if held_out is not None:
        loss, without = held_out["loss"], held_out["without_memory"]
        click.echo(
            f"Held-out loss: {loss:.4f} nats per token ({loss / math.log(2):.3f} bits), "
            f"{without:.4f} without the memory, over {held_out['tokens']:,} tokens in one stream."
        )
    click.echo(f"Checkpoint: {out / CHECKPOINT_FILE}")
    click.echo(f"Next: rillet export {out} --out BUNDLE")

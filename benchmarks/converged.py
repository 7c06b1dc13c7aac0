"""Baselines tried as hard as ours: rates and dropout searched, trained until validation stops.

    python benchmarks/converged.py CORPUS --beside CHECKPOINT [--held-out FILE] [--validation FILE]
        [--models gru,lstm,mingru,transformer,ours,compressors] [--minutes 60]
        [--clock 240] [--rungs 60,180] [--runs build/converged] [--results FILE]

CHECKPOINT is one of ours, trained on the same text. The baselines get its parameters, within 3 %,
its tokens, its trainer, streams, optimiser and weight average, and its validation and held-out
text. Each is searched by successive halving over :data:`RATES` and :data:`DROPOUTS`, and the choice
is trained on until validation has stopped improving (:class:`lib.plateau.Plateau`), or its
minutes are used, which its row then says. Then our memory is trained on top of it, and the held-out
text is read as one stream, with the memory and without.

``ours`` does the same to our own network: what its memory is worth when it is trained afterwards,
as on the baselines, beside what it is worth trained together. ``compressors`` are PPMd and zpaq,
given the same text.

Every finished row is written to the results at once, so the same command goes on where it was
interrupted. A row that its minutes cut short is trained on by a command with more of them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lib.baselines import Baseline, matched_gru
from lib.compressors import given_before
from lib.converging import ConvergingRun
from lib.halving import halve
from lib.lstm import matched_lstm
from lib.memory_on_top import Frozen, FrozenBaseline, FrozenDualCNN, fit_memory
from lib.min_gru import matched_min_gru
from lib.resumable_results import ResumableResults
from lib.sliding_transformer import matched_sliding
from rillet.runtime.files import sha256_file
from rillet.train import load_checkpoint
from rillet.train.checkpoint import Checkpoint
from rillet.train.config.training_config import TrainingConfig
from rillet.train.data.corpus import read_corpus
from rillet.train.data.streams import Split
from rillet.train.texts import RunTexts

__all__ = ["BUILD", "Texts", "read_texts", "train_baseline_fully"]

BUILD: dict[str, Callable[[int, int, float], Baseline]] = {
    "gru": matched_gru,
    "lstm": matched_lstm,
    "mingru": matched_min_gru,
    "transformer": lambda size, vocab, dropout: matched_sliding(size, vocab, 256, dropout),
}
"""Builds a baseline from a number of parameters, the vocabulary and dropout."""

RATES = {
    "gru": (5e-3, 1e-2, 2e-2),
    "lstm": (5e-3, 1e-2, 2e-2),
    "mingru": (5e-3, 1e-2, 2e-2),
    "transformer": (1.5e-3, 3e-3, 6e-3),
}
FURTHER = 2
"""Rates to add where the best is the highest or the lowest."""

DROPOUTS = (0.0, 0.1)
"""Those of our presets are 0.15 for ``nano`` and 0.35 for ``micro``."""

BATCHES = {"transformer": 8}
"""Streams of a step where they are not ours: a transformer takes more steps, of nanoGPT's size."""

MEMORY_STEPS = 120
_PIECES = 8

Notify = Callable[[str], object]


@dataclass(frozen=True)
class Texts:
    """The texts of a comparison.

    Attributes:
        split: The text to train on, the pieces to validate on, the held-out text.
        characters: Characters of the held-out text.
        words: The bytes of each token.
        before: The bytes of the text that may be learnt from, validation included.
        held_out: The bytes of the held-out text.
    """

    split: Split
    characters: int
    words: list[bytes]
    before: bytes
    held_out: bytes


def main() -> None:
    arguments = parse()
    torch.set_num_threads(1)
    checkpoint = load_checkpoint(arguments.beside)
    texts = read_texts(checkpoint, arguments.corpus, arguments.held_out, arguments.validation)
    path = arguments.results or default_results(arguments.beside)
    results = ResumableResults(path, about(arguments, checkpoint, texts))
    rungs = [int(steps) for steps in arguments.rungs.split(",")]
    runs = arguments.runs / arguments.beside.name
    limits = 60 * arguments.minutes, 60 * arguments.clock
    for name in arguments.models.split(","):
        if name == "compressors":
            add_compressors(results, texts)
        elif name == "ours":
            add_ours(results, checkpoint, texts)
        else:
            train_baseline_fully(name, results, checkpoint, texts, runs, rungs, limits, say(name))


def parse() -> argparse.Namespace:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--beside", type=Path, required=True, metavar="CHECKPOINT")
    parser.add_argument("--held-out", type=Path, metavar="FILE")
    parser.add_argument("--validation", type=Path, metavar="FILE")
    parser.add_argument("--models", default=",".join([*BUILD, "ours", "compressors"]))
    parser.add_argument("--minutes", type=float, default=60, help="CPU minutes of each baseline")
    parser.add_argument("--clock", type=float, default=240, help="its minutes by the clock")
    parser.add_argument("--rungs", default="60,180", help="steps after each rung of the search")
    parser.add_argument("--runs", type=Path, default=Path("build/converged"))
    parser.add_argument("--results", type=Path)
    arguments = parser.parse_args()
    known = [*BUILD, "ours", "compressors"]
    for name in arguments.models.split(","):
        if name not in known:
            parser.error(f"--models has {name!r}; choose from {', '.join(known)}")
    return arguments


def default_results(checkpoint: Path) -> Path:
    """The file of the figures beside a checkpoint."""
    return Path(__file__).parent / "results/converged" / f"{checkpoint.name}.json"


def read_texts(
    checkpoint: Checkpoint, corpus: Path, held_out: Path | None, validation: Path | None
) -> Texts:
    """Read the texts as the checkpoint's own training did.

    Raises:
        SystemExit: The checkpoint was trained on another text.
    """
    if sha256_file(corpus) != checkpoint.training["corpus_sha256"]:
        raise SystemExit(f"{corpus} is not the text that the checkpoint was trained on")
    config, tokenizer = checkpoint.model.config, checkpoint.tokenizer
    split = RunTexts.read(str(corpus), config, tokenizer, validation=held_out).split
    pieces = split.validation
    if validation is not None:
        tokens = torch.tensor(tokenizer.encode(read_corpus(str(validation))))
        tokens = tokens[: config.training.validation_tokens]
        pieces = tokens[: len(tokens) // _PIECES * _PIECES].view(_PIECES, -1)
    assert pieces is not None
    split = Split(split.trained, pieces, split.held_out)
    if held_out is None:
        whole = read_corpus(str(corpus))
        rest = tokenizer.decode(split.held_out.tensor().tolist())
        if not whole.endswith(rest):
            raise SystemExit(f"the tokenizer does not give back the end of {corpus}")
        before, last = whole[: -len(rest)], rest
    else:
        before, last = read_corpus(str(corpus)), read_corpus(str(held_out))
    return Texts(
        split,
        len(last),
        list(tokenizer.token_bytes),
        before.encode(),
        last.encode(),
    )


def about(arguments: argparse.Namespace, checkpoint: Checkpoint, texts: Texts) -> dict[str, Any]:
    """What all rows were given, and what ours reached."""
    training, pieces = checkpoint.training, texts.split.validation
    assert pieces is not None
    return {
        "corpus": arguments.corpus.name,
        "corpus_sha256": training["corpus_sha256"],
        "held_out": arguments.held_out.name if arguments.held_out else None,
        "validation": arguments.validation.name if arguments.validation else None,
        "beside": arguments.beside.name,
        "trained_tokens": len(texts.split.trained),
        "validation_tokens": pieces.numel(),
        "held_out_tokens": len(texts.split.held_out),
        "held_out_characters": texts.characters,
        "held_out_bytes": len(texts.held_out),
        "vocabulary": len(texts.words),
        "ours": {
            "parameters": training["parameters"],
            "steps": training["steps"],
            "minutes": training["seconds"] / 60,
            "validation": training["validation_loss"],
            "held_out": training["held_out"],
            "settings": {
                "learning_rate": training["config"]["learning_rate"],
                "dropout": checkpoint.model.config.dropout,
                "batch": training["config"]["batch"],
                "chunk": training["config"]["chunk"],
            },
        },
    }


def train_baseline_fully(
    name: str,
    results: ResumableResults,
    checkpoint: Checkpoint,
    texts: Texts,
    runs: Path,
    rungs: list[int],
    limits: tuple[float, float],
    notify: Notify,
) -> None:
    """Search, train, add the memory, and measure; what the results already hold is not repeated.

    Args:
        name: The baseline, of :data:`BUILD`.
        results: Where the figures go.
        checkpoint: Our model, for its size and its settings.
        texts: The texts.
        runs: Folder for the runs.
        rungs: Steps of the search after each rung.
        limits: Seconds of the chosen run: CPU time, and by the clock.
        notify: Called with lines on the progress.
    """
    done = results.get("rows", name)
    if done and (
        done["converged"] or all(60 * m >= s for m, s in zip(done["limits"], limits, strict=True))
    ):
        notify("is in the results already")
        return
    if results.get("searches", name) is None:
        results.put("searches", name, search(name, checkpoint, texts, runs, rungs, notify))
    chosen = results.get("searches", name)["chosen"]
    run = start_run(name, checkpoint, texts, runs, chosen["learning_rate"], chosen["dropout"])
    notify(f"trains at {chosen}, from step {run.steps}")
    stopped = run.train(limit=limits[0], wall_limit=limits[1], notify=notify)
    row = measured(run, stopped, limits, checkpoint, texts, notify)
    results.put("rows", name, row)


def search(
    name: str, checkpoint: Checkpoint, texts: Texts, runs: Path, rungs: list[int], notify: Notify
) -> dict[str, Any]:
    """Choose a learning rate and dropout by short runs, which the training later continues."""
    began, own = time.process_time(), checkpoint.model.config.training

    def measure(candidate: tuple[float, float], steps: int) -> float:
        run = start_run(name, checkpoint, texts, runs, *candidate)
        run.train(until=round(steps * (own.batch / run.config.batch) ** 0.5))
        loss = run.measure()
        notify(f"rate {candidate[0]:g}, dropout {candidate[1]:g}, step {run.steps}: {loss:.4f}")
        return loss

    rates = bracketed(RATES[name], lambda rate: measure((rate, DROPOUTS[0]), rungs[0]))
    grid = [(rate, dropout) for rate in rates for dropout in DROPOUTS]
    chosen, tried = halve(grid, rungs, measure)
    return {
        "chosen": {"learning_rate": chosen[0], "dropout": chosen[1]},
        "rungs": rungs,
        "tried": [
            [
                {"learning_rate": rate, "dropout": dropout, "validation": loss}
                for (rate, dropout), loss in losses
            ]
            for losses in tried
        ],
        "cpu_minutes": (time.process_time() - began) / 60,
    }


def bracketed(rates: Sequence[float], measure: Callable[[float], float]) -> list[float]:
    """Add higher or lower rates, a factor of two apart, until the best is not the outermost."""
    losses = {rate: measure(rate) for rate in rates}
    for _ in range(FURTHER):
        best = min(losses, key=lambda rate: losses[rate])
        if best not in (min(losses), max(losses)):
            break
        further = best * 2 if best == max(losses) else best / 2
        losses[further] = measure(further)
    return sorted(losses)


def start_run(
    name: str, checkpoint: Checkpoint, texts: Texts, runs: Path, rate: float, dropout: float
) -> ConvergingRun:
    """Begin or continue a run."""
    own = checkpoint.model.config
    torch.manual_seed(own.seed)  # for the initial weights
    model = BUILD[name](checkpoint.training["parameters"], own.vocab_size, dropout)
    config = training_config(name, own.training, rate)
    assert texts.split.validation is not None
    folder = runs / f"{name}-{rate:g}-{dropout:g}"
    return ConvergingRun(model, texts.split.trained, texts.split.validation, config, folder)


def training_config(name: str, own: TrainingConfig, rate: float) -> TrainingConfig:
    """The settings of a baseline's training: ours, but for its rate and its batch."""
    batch = BATCHES.get(name, own.batch)
    # As many tokens between two validations, whatever the batch, and at least 20 steps.
    every = max(20, 30 * own.batch // batch)
    return own.replace(learning_rate=rate, batch=batch, validate_every=every)


def measured(
    run: ConvergingRun,
    stopped: str,
    limits: tuple[float, float],
    checkpoint: Checkpoint,
    texts: Texts,
    notify: Notify,
) -> dict[str, Any]:
    """The row of a trained baseline."""
    model = run.best()
    settings = run.config
    return {
        "parameters": model.parameter_count(),
        "shape": shape_of(model),
        "steps": run.steps,
        "best_step": run.plateau.best_step,
        "tokens": run.steps * settings.batch * settings.chunk,
        "cpu_minutes": run.cpu / 60,
        "minutes": run.wall / 60,
        "limits": [seconds / 60 for seconds in limits],
        "stopped": stopped,
        "converged": run.plateau.converged,
        "validation": run.plateau.best,
        "history": run.history,
        "settings": {
            "learning_rate": settings.learning_rate,
            "dropout": getattr(model, "dropout"),  # noqa: B009 - every baseline has one
            "batch": settings.batch,
            "chunk": settings.chunk,
        },
        **with_memory(FrozenBaseline(model), checkpoint, texts, notify),
    }


def with_memory(
    network: Frozen, checkpoint: Checkpoint, texts: Texts, notify: Notify
) -> dict[str, Any]:
    """Train our memory on top of a network, and measure both on the held-out text."""
    own = checkpoint.model.config
    training = own.training.replace(steps=MEMORY_STEPS, validate_every=40, warmup=10)
    assert texts.split.validation is not None
    began = time.process_time()
    top, figures = fit_memory(
        network,
        texts.words,
        texts.split.trained,
        texts.split.validation,
        own,
        training,
        notify=notify,
    )
    figures["cpu_minutes"] = (time.process_time() - began) / 60
    figures["settings"] = {"learning_rate": training.learning_rate, "batch": training.batch}
    mixed, alone = top.losses(texts.split.held_out)
    notify(f"held out: {alone:.4f}, with the memory {mixed:.4f}")
    return {"memory": figures, "held_out": {"loss": mixed, "without_memory": alone}}


def shape_of(model: Baseline) -> dict[str, int]:
    """The sizes that the number of parameters decided."""
    layers = getattr(model, "blocks", None)
    count = len(layers) if layers is not None else int(model.get_submodule("layers").num_layers)
    sizes = {"width": model.tokens.embedding_dim, "layers": count}
    for name in ("heads", "window"):
        if hasattr(model, name):
            sizes[name] = int(getattr(model, name))
    return sizes


def add_ours(results: ResumableResults, checkpoint: Checkpoint, texts: Texts) -> None:
    """Add our own network with its memory trained afterwards."""
    if results.get("rows", "ours, memory afterwards") is None:
        network = FrozenDualCNN(checkpoint.model)
        row = with_memory(network, checkpoint, texts, say("ours"))
        results.put("rows", "ours, memory afterwards", row)


def add_compressors(results: ResumableResults, texts: Texts) -> None:
    """Add PPMd and zpaq, given the same text."""
    for name, measure in given_before(texts.before, texts.held_out, texts.characters).items():
        if results.get("compressors", name) is None:
            row = measure()
            say(name)(json.dumps(row))
            results.put("compressors", name, row)


def say(name: str) -> Notify:
    """Prints lines about a row."""
    return lambda line: print(f"{name}: {line}", flush=True)


if __name__ == "__main__":
    main()

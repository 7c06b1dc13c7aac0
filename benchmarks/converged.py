"""Baselines tried as hard as ours: rates and dropout searched, trained until validation stops.

    python benchmarks/converged.py CORPUS --beside CHECKPOINT [--held-out FILE] [--validation FILE]
        [--models gru,lstm,mingru,transformer,ours,compressors] [--longer RUN]
        [--dropouts 0,0.1,0.2] [--minutes 60] [--clock 240] [--rungs 60,180] [--finalists 2]
        [--runs build/converged] [--results FILE]

CHECKPOINT is one of ours, trained on the same text. The baselines get its parameters, within 3 %,
its tokens, its trainer, streams, optimiser and weight average, and its validation and held-out
text. The rates are ranked by successive halving. The best of them, at the first dropout, and the
other dropouts, at the best rate, are trained on until validation has stopped improving
(:class:`lib.plateau.Plateau`), or the minutes of CPU time or by the clock are used, which the row
then says; the best by validation is kept. Our memory
is trained on top of it, and the held-out text is read as one stream, with the memory and without.

``ours`` does the same to our own network: what its memory is worth when it is trained afterwards,
as on the baselines, beside what it is worth trained together. ``compressors`` are PPMd and zpaq,
given the same text. ``--longer`` adds a run of ours with more steps than the checkpoint's.

Every finished row is written to the results at once, so the same command goes on where it was
interrupted. A row that its minutes cut short is trained on by a command with more of them. With
glibc, MALLOC_MMAP_MAX_=0 in the environment saves up to a third of the time: the logits of a step
then need no fresh pages.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lib.comparison_texts import Texts, read_texts
from lib.compressors import given_before
from lib.converged_results import results_file
from lib.full_training import BUILD, FullTraining, measured, memory_is_done, memory_on
from lib.memory_on_top import FrozenDualCNN
from lib.resumable_results import ResumableResults
from rillet.export.bundle.training_command import command_of_run
from rillet.train import load_checkpoint
from rillet.train.checkpoint import Checkpoint

OTHERS = ("ours", "compressors")
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    arguments = parse()
    torch.set_num_threads(1)
    checkpoint = load_checkpoint(arguments.beside)
    texts = read_texts(checkpoint, arguments.corpus, arguments.held_out, arguments.validation)
    path = arguments.results or results_file(RESULTS, arguments.beside.name)
    results = ResumableResults(path, about(arguments, checkpoint, texts))
    rungs = [int(steps) for steps in arguments.rungs.split(",")]
    dropouts = [float(dropout) for dropout in arguments.dropouts.split(",")]
    if arguments.longer is not None:
        results.put(*longer_row(load_checkpoint(arguments.longer), arguments.longer.name))
    folder, limits = arguments.runs / arguments.beside.name, (arguments.minutes, arguments.clock)
    for name in arguments.models.split(","):
        notify = say(name)
        if name == "compressors":
            add_compressors(results, texts)
        elif name == "ours":
            add_ours(results, checkpoint, texts)
        else:
            training = FullTraining(name, checkpoint, texts, folder, results, notify)
            seconds = 60 * limits[0], 60 * limits[1]
            training.run(rungs, dropouts, seconds, arguments.finalists)


def parse() -> argparse.Namespace:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--beside", type=Path, required=True, metavar="CHECKPOINT")
    parser.add_argument("--held-out", type=Path, metavar="FILE")
    parser.add_argument("--validation", type=Path, metavar="FILE")
    parser.add_argument("--longer", type=Path, metavar="RUN")
    parser.add_argument("--models", default=",".join([*BUILD, *OTHERS]))
    parser.add_argument("--dropouts", default="0,0.1,0.2")
    parser.add_argument("--minutes", type=float, default=60, help="CPU minutes of each training")
    parser.add_argument("--clock", type=float, default=240, help="its minutes by the clock")
    parser.add_argument("--rungs", default="60,180", help="steps after each rung of the search")
    parser.add_argument("--finalists", type=int, default=2, help="rates to train to the end")
    parser.add_argument("--runs", type=Path, default=Path("build/converged"))
    parser.add_argument("--results", type=Path)
    arguments = parser.parse_args()
    known = [*BUILD, *OTHERS]
    for name in arguments.models.split(","):
        if name not in known:
            parser.error(f"--models has {name!r}; choose from {', '.join(known)}")
    return arguments


def about(arguments: argparse.Namespace, checkpoint: Checkpoint, texts: Texts) -> dict[str, Any]:
    """What all rows were given, and what ours reached."""
    training = checkpoint.training
    return {
        "corpus": arguments.corpus.name,
        "corpus_sha256": training["corpus_sha256"],
        "held_out": arguments.held_out.name if arguments.held_out else None,
        "validation": arguments.validation.name if arguments.validation else None,
        "beside": arguments.beside.name,
        "trained_tokens": len(texts.trained),
        "validation_tokens": texts.validation.numel(),
        "held_out_tokens": len(texts.held_out),
        "held_out_characters": texts.characters,
        "held_out_bytes": len(texts.after),
        "vocabulary": len(texts.words),
        "ours": reached(checkpoint),
    }


def reached(checkpoint: Checkpoint) -> dict[str, Any]:
    """What a run of ours was given, and what it reached."""
    training = checkpoint.training
    return {
        "parameters": training["parameters"],
        "steps": training["config"]["steps"],
        "best_step": training["steps"],
        "minutes": training["seconds"] / 60,
        "validation": training["validation_loss"],
        "held_out": training["held_out"],
        "settings": {
            "learning_rate": training["config"]["learning_rate"],
            "dropout": checkpoint.model.config.dropout,
            "batch": training["config"]["batch"],
            "chunk": training["config"]["chunk"],
        },
    }


def longer_row(run: Checkpoint, name: str) -> tuple[str, str, dict[str, Any]]:
    """The row of a longer run of ours, and where it goes."""
    row = reached(run)
    row["trained"] = command_of_run(run.training, run.model.config.to_dict(), name)
    return "rows", f"ours, {row['steps']:,} steps", row


def add_ours(results: ResumableResults, checkpoint: Checkpoint, texts: Texts) -> None:
    """Add our own network with its memory trained afterwards."""
    done = results.get("rows", "ours, memory afterwards")
    if done is None or not memory_is_done(done):
        network = FrozenDualCNN(checkpoint.model)
        top, figures = memory_on(network, checkpoint, texts, say("ours"))
        row = measured(top, figures, texts, say("ours"))
        results.put("rows", "ours, memory afterwards", row)


def add_compressors(results: ResumableResults, texts: Texts) -> None:
    """Add PPMd and zpaq, given the same text."""
    for name, measure in given_before(texts.before, texts.after, texts.characters).items():
        if results.get("compressors", name) is None:
            row = measure()
            say(name)(json.dumps(row))
            results.put("compressors", name, row)


def say(name: str) -> Callable[[str], None]:
    """Prints lines about a row."""
    return lambda line: print(f"{name}: {line}", flush=True)


if __name__ == "__main__":
    main()

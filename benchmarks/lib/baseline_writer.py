"""Texts that a converged baseline with our memory writes, drawn as our runtime draws."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from rillet.runtime import Sampler, SamplingParams, Tokenizer
from rillet.train import load_checkpoint

from .comparison_texts import read_texts
from .full_training import FullTraining
from .memory_on_top import MemoryOnTop
from .resumable_results import ResumableResults

__all__ = ["converged_baseline", "write_texts"]

_LOOK = 64
"""Steps between two looks at the lengths."""


def converged_baseline(
    name: str,
    beside: Path,
    texts: tuple[Path, Path | None, Path | None],
    runs: Path,
    results: Path,
    notify: Callable[[str], object],
) -> tuple[MemoryOnTop, Tokenizer]:
    """The network of a row of ``converged.py``, with our memory trained on top again.

    Args:
        name: The baseline.
        beside: The checkpoint of ours that it stands beside.
        texts: The training text, and those that were held out and chosen by, as files.
        runs: The folder of the runs.
        results: The file with the row.
        notify: Called with lines on the progress.

    Raises:
        SystemExit: There is no such row, or its run is not in the folder.
    """
    checkpoint = load_checkpoint(beside)
    rows = ResumableResults(results, {})
    row = rows.get("rows", name)
    if row is None:
        raise SystemExit(f"{results} has no row {name}; run benchmarks/converged.py")
    training = FullTraining(
        name, checkpoint, read_texts(checkpoint, *texts), runs / beside.name, rows, notify
    )
    settings = row["settings"]
    run = training.begin(settings["learning_rate"], settings["dropout"])
    if run.steps != row["steps"]:
        raise SystemExit(
            f"{runs / beside.name} holds step {run.steps:,} of {name}, and the row is of "
            f"{row['steps']:,}; run benchmarks/converged.py again"
        )
    return training.memory_on(run.best())[0], checkpoint.tokenizer


@torch.no_grad()
def write_texts(
    top: MemoryOnTop,
    tokenizer: Tokenizer,
    setting: dict[str, Any],
    count: int,
    length: int,
    prompt: str = "\n",
) -> list[str]:
    """Texts of one length that a network writes after a prompt, with seeds 0, 1, 2 and so on.

    Args:
        top: The network and the memory, which does not learn what it writes, as by our default.
        tokenizer: Their tokenizer.
        setting: How to draw; fields of :class:`SamplingParams`.
        count: Number of texts, written together.
        length: Characters of a text.
        prompt: What each text follows.
    """
    samplers = [Sampler(SamplingParams(seed=seed, **setting)) for seed in range(count)]
    top.network.module.eval()
    top.memory.eval()
    begun = torch.tensor([tokenizer.encode(prompt)] * count)
    nothing = torch.zeros(count)
    logits, _, state = top.read(begun)
    written: list[list[int]] = [[] for _ in samplers]
    while True:
        for row, sampler in enumerate(samplers):
            written[row].append(sampler.draw(logits[row, -1].numpy()))
        if len(written[0]) % _LOOK == 0:
            decoded = [tokenizer.decode(tokens) for tokens in written]
            if min(map(len, decoded)) >= length:
                return [text[:length] for text in decoded]
        last = torch.tensor([tokens[-1:] for tokens in written])
        logits, _, state = top.read(last, state, nothing)

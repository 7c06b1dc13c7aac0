"""Tokens per second of training steps on a device, by preset and batch."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from rillet.train import PRESETS, DualCNN, DualCNNConfig, DualCNNTrainer
from rillet.train.data.streams import Streams, Text
from rillet.train.data.token_file import Tokens
from rillet.train.loop.batch_step import BatchStep
from rillet.train.loop.distributed import Group
from rillet.train.model.precision import autocast_dtype

from .samples import no_words

__all__ = ["measure_speeds"]

_TOKENS = 1 << 20
"""Tokens of the text that are trained on: enough for 512 streams, and fitted in seconds."""

_WARM_UP = 3
"""Steps before the clock starts: kernels are chosen and memory is allocated in them."""


def measure_speeds(
    text: Tokens,
    vocab_size: int,
    presets: list[str],
    batches: list[int],
    precision: str,
    group: Group,
    seconds: float,
    save: Callable[[list[dict[str, Any]]], None],
) -> list[dict[str, Any]]:
    """Time whole training steps: losses, gradients, optimizer and average.

    Args:
        text: The text to train on.
        vocab_size: Its number of tokens.
        presets: Names of presets.
        batches: Streams of a step.
        precision: ``fp32``, ``bf16`` or ``auto``.
        group: Its device trains.
        seconds: How long each preset trains at each batch, after the warm-up.
        save: Called with the rows so far after each.

    Returns:
        One row for each preset and batch; with a ``reason`` where it cannot train.
    """
    rows: list[dict[str, Any]] = []
    text = text[:_TOKENS]
    for preset in presets:
        for batch in batches:
            row: dict[str, Any] = {"preset": preset, "batch": batch}
            try:
                config = PRESETS[preset].replace(
                    vocab_size=vocab_size, batch=batch, precision=precision
                )
                row |= _speed(config, text, group, seconds)
            except Exception as error:  # a batch that does not fit must not stop the others
                row["reason"] = str(error) or repr(error)
            rows.append(row)
            print(_sentence(row), flush=True)
            save(rows)
    return rows


def _speed(config: DualCNNConfig, text: Tokens, group: Group, seconds: float) -> dict[str, Any]:
    training, device, notes = config.training, group.device, list[str]()
    model = DualCNN(config).fit(text, no_words(config.vocab_size))
    trainer = DualCNNTrainer(model, training, group)
    batch = BatchStep(
        trainer.model, training, group, Streams(Text(text), training), None, notes.append
    )
    trainer.model.autocast = autocast_dtype(training.precision, device)
    trainer.model.train()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    losses = [trainer.step(batch, step)[0].total for step in range(_WARM_UP)]
    start, steps = time.perf_counter(), 0
    # Every step ends with its losses on the host, so the clock needs no synchronization.
    while not steps or time.perf_counter() - start < seconds:
        losses.append(trainer.step(batch, _WARM_UP + steps)[0].total)
        steps += 1
    took = time.perf_counter() - start
    return {
        "chunk": training.chunk,
        "precision": str(trainer.model.autocast or torch.float32).removeprefix("torch."),
        "steps": steps,
        "seconds": took,
        "tokens_per_second": steps * training.batch * training.chunk / took,
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "memory": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
        "notes": notes,
    }


def _sentence(row: dict[str, Any]) -> str:
    what = f"{row['preset']}, batch {row['batch']}"
    if "reason" in row:
        return f"{what}: not measured: {row['reason']}"
    return (
        f"{what}, {row['precision']}: {row['tokens_per_second']:,.0f} tokens/s "
        f"({row['steps']} steps in {row['seconds']:.1f} s)"
    )

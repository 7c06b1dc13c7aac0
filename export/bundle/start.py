"""What a bundle's streams begin with: the memory's size, and what a text taught it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...runtime.engines.base import Engine
from ...runtime.files import scratch_folder, write_atomic
from ...runtime.start_state import START_STATE_FILE, start_state_bytes
from ...runtime.text_sample import TextSample
from ...train.checkpoint import Checkpoint
from ...train.teach import Taught, memory_slots, resized, teach
from ..options import ExportOptions
from ..parity.losses import prefill_loss

__all__ = ["measure_taught", "of_chosen_size", "taught_entry", "taught_for", "write_start_state"]

_TOKENS = 20_000
"""Most tokens on which the gain is measured: some seconds."""


def of_chosen_size(checkpoint: Checkpoint, options: ExportOptions) -> Checkpoint:
    """The checkpoint with the memory that the options ask for.

    Raises:
        UsageError: Its memory cannot be resized, or not to that size.
    """
    if (size := options.memory_bytes) is None:
        return checkpoint
    return resized(checkpoint, memory_slots(checkpoint.model.config, size))


def taught_for(
    checkpoint: Checkpoint,
    options: ExportOptions,
    target: Path,
    note: Callable[[str], object],
) -> Taught | None:
    """Read the texts that the options name; ``None`` if they name none.

    Args:
        checkpoint: The model, with a memory of the chosen size.
        options: What to write.
        target: The bundle to write; the tokens of a large text lie beside it meanwhile.
        note: Called with the name of the phase.

    Raises:
        CorpusError: A text cannot be used.
        UsageError: The model's memory cannot be taught.
    """
    if not options.texts:
        return None
    note("teaching")
    with scratch_folder(target) as scratch:
        return teach(checkpoint, options.texts, scratch)


def write_start_state(folder: Path, taught: Taught) -> str:
    """Write the file that streams begin with; return its name."""
    write_atomic(folder / START_STATE_FILE, start_state_bytes(taught.table.numpy()))
    return START_STATE_FILE


def taught_entry(taught: Taught) -> dict[str, Any]:
    """What ``bundle.json`` says of the text; :func:`measure_taught` adds what it is worth."""
    return {
        "file": START_STATE_FILE,
        "text": taught.text,
        "sha256": taught.sha256,
        "part": taught.part or "all of it",
        "tokens": taught.tokens,
        "slots": len(taught.table),
    }


def measure_taught(engine: Engine, sample: TextSample | None, taught: Taught) -> dict[str, Any]:
    """Measure the loss on the run's sample, from zeros and taught.

    Args:
        engine: The engine of the finished bundle.
        sample: The checkpoint's sample of the run's text.
        taught: What was taught.

    Returns:
        The figures, or why there are none.
    """
    if sample is None or len(sample.tokens) < 2:
        return {"not_measured": "the run kept no sample of its text"}
    if taught.has_sample:
        return {"not_measured": f"the text contains the sample of {sample.description}"}
    tokens = sample.tokens[None, : _TOKENS + 1]
    start = engine.bundle.start_state()
    figures = {
        "text": sample.description,
        "tokens": tokens.shape[1] - 1,
        "loss_from_zeros": round(prefill_loss(engine, tokens), 6),
        "loss_taught": round(prefill_loss(engine, tokens, start=start), 6),
    }
    return {"measured": figures}

"""Held-out loss, measured the way the model is used: on one long stream."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.token_file import Tokens
from ..model.dual_cnn import DualCNN

__all__ = ["Evaluation", "evaluate", "evaluate_rows"]


@dataclass(frozen=True)
class Evaluation:
    """Mean cross-entropy in nats per token.

    Attributes:
        loss: Loss of the final prediction, memory included: what a stream delivers.
        without_memory: Loss of the last CNN without the memory, for comparison with models
            that see only a window.
        first: Loss of the first CNN.
        tokens: Number of predictions measured.
    """

    loss: float
    without_memory: float
    first: float
    tokens: int


def evaluate(
    model: DualCNN,
    tokens: Tensor | Tokens,
    rows: int = 1,
    chunk: int = 512,
    progress: Callable[[int], None] | None = None,
    ends: float | None = None,
) -> Evaluation:
    """Measure a model on a text.

    Args:
        model: The model.
        tokens: The text, ``[length]``, with at least 2 tokens per row.
        rows: Number of equal parts, each read as a stream from zeros; with one row, the whole
            text is one stream.
        chunk: Tokens read at a time.
        progress: Called after each chunk with the number of tokens in it.
        ends: When to stop, in the seconds of :func:`time.monotonic`: no chunk but the first is
            begun after it.

    Returns:
        The losses.
    """
    text = Tokens.of(tokens)
    rows = max(1, min(rows, len(text) // 2))
    length = (len(text) - 1) // rows
    starts = torch.arange(rows) * length
    return _measure(
        model, lambda at, size: text.windows(starts + at, size), rows, length, chunk, progress, ends
    )


def evaluate_rows(model: DualCNN, rows: Tensor, chunk: int = 512) -> Evaluation:
    """Measure a model on pieces of text, each a stream from zeros.

    Args:
        model: The model.
        rows: The pieces, ``[pieces, length]``, or a single piece, ``[length]``.
        chunk: Tokens read at a time.

    Returns:
        The losses, averaged over all pieces.
    """
    rows = rows.view(-1, rows.shape[-1])
    length = rows.shape[1] - 1
    return _measure(model, lambda at, size: rows[:, at : at + size], len(rows), length, chunk)


@torch.no_grad()
def _measure(
    model: DualCNN,
    window: Callable[[int, int], Tensor],
    rows: int,
    length: int,
    chunk: int,
    progress: Callable[[int], None] | None = None,
    ends: float | None = None,
) -> Evaluation:
    """Measure ``length`` predictions per row; ``window(start, size)`` reads the rows' tokens."""
    training = model.training
    model.eval()
    try:
        state = model.zero_state(rows)
        device = state["position"].device
        sums = torch.zeros(3, dtype=torch.float64)
        count = 0
        for start in range(0, length, chunk):
            if count and ends is not None and time.monotonic() > ends:
                break
            size = min(chunk, length - start)
            tokens = window(start, size + 1).to(device)
            output = model.compute(tokens[:, :-1], state)
            state, target = output.state, tokens[:, 1:].reshape(-1)
            for index, logits in enumerate(
                (output.logits, output.without_memory, output.first_logits)
            ):
                sums[index] += F.cross_entropy(logits.flatten(0, 1), target, reduction="sum").cpu()
            count += rows * size
            if progress is not None:
                progress(rows * size)
        final, without, first = (sums / count).tolist()
        return Evaluation(final, without, first, count)
    finally:
        model.train(training)

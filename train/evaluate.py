"""Held-out loss, measured the way the model is used: one long stream."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .model import DualCNN

__all__ = ["Evaluation", "evaluate"]


@dataclass(frozen=True)
class Evaluation:
    """Mean cross-entropy in nats per token.

    Attributes:
        loss: Of the final prediction, memory included: what a stream delivers.
        without_memory: Of the second CNN without the memory: what compares with
            models that see a window only.
        first: Of the first CNN.
        tokens: Number of predictions measured.
    """

    loss: float
    without_memory: float
    first: float
    tokens: int


@torch.no_grad()
def evaluate(
    model: DualCNN,
    tokens: Tensor,
    rows: int = 1,
    chunk: int = 512,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Measure a model on a text.

    Args:
        model: The model.
        tokens: The text, ``[length]``, at least 2 tokens for each row.
        rows: Equal parts read side by side, each a stream from zeros; with one row
            the whole text is one stream.
        chunk: Tokens read at a time.
        progress: Called with the number of tokens read, after each chunk.

    Returns:
        The losses.
    """
    training = model.training
    model.eval()
    try:
        rows = max(1, min(rows, len(tokens) // 2))
        length = (len(tokens) - 1) // rows
        inputs = tokens[: rows * length].view(rows, length)
        targets = tokens[1 : rows * length + 1].view(rows, length)
        state = model.zero_state(rows)
        sums = torch.zeros(3, dtype=torch.float64)
        for start in range(0, length, chunk):
            output = model.compute(inputs[:, start : start + chunk], state)
            state = output.state
            target = targets[:, start : start + chunk].reshape(-1)
            for index, logits in enumerate(
                (output.logits, output.without_memory, output.first_logits)
            ):
                sums[index] += F.cross_entropy(logits.flatten(0, 1), target, reduction="sum")
            if progress is not None:
                progress(rows * min(chunk, length - start))
        final, without, first = (sums / (rows * length)).tolist()
        return Evaluation(final, without, first, rows * length)
    finally:
        model.train(training)

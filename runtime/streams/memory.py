"""Teaching a stream's memory a text, and forgetting it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..context_slots import is_learnt
from ..engines.base import Values
from ..errors import UsageError
from .stream import Stream

__all__ = ["forget_all", "learn_text"]


def learn_text(stream: Stream, pieces: Iterable[str]) -> int:
    """Read a text as a stream of its own, and keep what the memory holds of it.

    Args:
        stream: The stream. If this fails, nothing has changed.
        pieces: The text, in pieces.

    Returns:
        The number of tokens read.

    Raises:
        UsageError: The stream has no memory.
    """
    names = _learnt_tensors(stream)
    if not names or not stream.memory:
        reason = "model was exported without one" if not names else "session has memory=False"
        raise UsageError(f"the stream cannot learn: it has no memory, for the {reason}")
    kept = {*names, "position"}
    context = stream.snapshot()
    before = stream.state.read()
    try:
        start = {row.name: row.zeros(1) for row in stream.model.bundle.state}
        stream.state.write({name: (before if name in kept else start)[name] for name in before})
        count = stream.read_text(pieces, learn=1.0)
        learnt = stream.state.read()
    finally:
        stream.restore(context)
    _replace(stream, {name: (learnt if name in kept else before)[name] for name in before}, before)
    return count


def forget_all(stream: Stream) -> None:
    """Return the memory to what it began with; the stream itself stays where it is."""
    before = stream.state.read()
    taught = stream.model.taught if stream.taught else None
    first = {
        name: np.zeros_like(before[name]) if taught is None else taught[name]
        for name in _learnt_tensors(stream)
    }
    _replace(stream, {**before, **first}, before)


def _replace(stream: Stream, values: Values, before: Values) -> None:
    """Write a state, and the prediction that follows from its memory; whole or not at all."""
    logits = stream.logits
    values, prediction = stream.with_memory(values)
    try:
        stream.state.write(values)
        stream.logits = prediction
    except BaseException:
        stream.state.write(before)
        stream.logits = logits
        raise


def _learnt_tensors(stream: Stream) -> list[str]:
    return [row.name for row in stream.model.bundle.state if is_learnt(row.name)]

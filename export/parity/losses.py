"""The loss of an engine on a stream of tokens."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ...runtime.engines.base import Engine, Values
from .start import engine_state

__all__ = ["prefill_loss", "step_loss"]

_CHUNK = 256


def prefill_loss(
    engine: Engine,
    tokens: npt.NDArray[np.int64],
    progress: Callable[[int], object] | None = None,
    start: Values | None = None,
) -> float:
    """Nats per token of a stream ``[1, T]``, read in chunks by the prefill graph."""
    state, nats, inputs = engine_state(engine, start), 0.0, tokens[:, :-1]
    for at in range(0, inputs.shape[1], _CHUNK):
        chunk = inputs[:, at : at + _CHUNK]
        logits = engine.prefill(chunk, state)[0]
        targets = tokens[0, at + 1 : at + 1 + chunk.shape[1]]
        nats -= float(logits[np.arange(len(targets)), targets].sum(dtype=np.float64))
        if progress is not None:
            progress(chunk.shape[1])
    return nats / int(inputs.shape[1])


def step_loss(
    engine: Engine,
    tokens: npt.NDArray[np.int64],
    progress: Callable[[int], object] | None = None,
    start: Values | None = None,
) -> float:
    """Nats per token of a stream ``[1, T]``, read token by token by the step graph."""
    state, nats, count = engine_state(engine, start), 0.0, int(tokens.shape[1]) - 1
    for place in range(count):
        logits = engine.step(tokens[:, place], state)
        nats -= float(logits[0, tokens[0, place + 1]])
        if progress is not None and place % _CHUNK == _CHUNK - 1:
            progress(_CHUNK)
    if progress is not None:
        progress(count % _CHUNK)
    return nats / count

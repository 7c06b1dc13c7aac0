"""Parity of the step graph and the prefill graph on a stream of tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...runtime.engines.base import Engine, EngineState, Values
from ...train.model.state import State
from .comparison import Comparison
from .start import engine_state, torch_state

__all__ = ["ReferenceModel", "compare_graph"]

_SPAN = 256
"""Tokens between two comparisons of the state."""


class ReferenceModel(Protocol):
    """What the engine is compared with: the PyTorch model, or an engine in its place."""

    def zero_state(self, batch: int) -> State:
        """The start of a stream."""
        ...

    def __call__(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Read ``tokens [B, T]``; return logits ``[B, T, V]`` and the next state."""
        ...


@torch.no_grad()
def compare_graph(
    model: ReferenceModel,
    engine: Engine,
    graph: str,
    tokens: npt.NDArray[Any],
    text: str,
    tolerance: float,
    seed: int = 0,
    progress: Callable[[int], object] | None = None,
    start: Values | None = None,
) -> Comparison:
    """Read tokens with the reference and with an engine; compare logits and every state tensor.

    Args:
        model: The reference.
        engine: The engine under test.
        graph: ``decode`` reads step by step, ``prefill`` in chunks of random length.
        tokens: ``[B, T]``.
        text: Name of the tokens in the report.
        tolerance: Tokens whose logits lie closer than this are a tie.
        seed: Seed of the chunk lengths.
        progress: Called with the number of tokens read.
        start: The state to begin with, for one row; zeros by default.

    Returns:
        The figures.
    """
    result = Comparison(graph, text, provider=engine.provider)
    random = np.random.default_rng(seed)
    batch, length = tokens.shape
    state = torch_state(model.zero_state(batch), start)
    held = engine_state(engine, start, batch)
    overlaps = []
    for at in range(0, length, _SPAN):
        span = tokens[:, at : at + _SPAN]
        output, state = model(torch.from_numpy(span), state)
        actual, places = _read(engine, held, graph, span, random)
        expected, steps = output.numpy()[:, places], at + places
        result.tokens += span.size
        result.add_choices(expected, actual, steps, tolerance)
        overlaps.append(_overlap(expected, actual))
        result.add_logits(expected, actual, steps, length, tolerance)
        result.add_losses(expected, actual, steps, tokens)
        expected_state = {name: tensor.numpy() for name, tensor in state.items()}
        last = at + span.shape[1] - 1
        result.add_state(expected_state, held.read(), last, tolerance)
        if progress is not None:
            progress(span.size)
    result.overlap = float(np.mean(overlaps))
    return result


def _read(
    engine: Engine,
    state: EngineState,
    graph: str,
    span: npt.NDArray[Any],
    random: np.random.Generator,
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Read a span with one graph: logits ``[B, S, V]`` and the S positions they follow."""
    if graph == "decode":
        steps = [engine.step(column, state).copy() for column in span.T]
        return np.stack(steps, axis=1), np.arange(span.shape[1])
    parts, places, end = [], [], 0
    for chunk in _cut(span, random):
        # A graph that predicts only after a call's last token returns one row per chunk.
        logits = engine.prefill(chunk, state, last=engine.last_logits)
        end += chunk.shape[1]
        parts.append(logits)
        places.append(np.arange(end - logits.shape[1], end))
    return np.concatenate(parts, axis=1), np.concatenate(places)


def _cut(span: npt.NDArray[Any], random: np.random.Generator) -> Iterator[npt.NDArray[Any]]:
    """Cut ``[B, T]`` into chunks of random length, many of them short."""
    start = 0
    while start < span.shape[1]:
        length = int(random.choice([1, 2, 3, 17, 64, 200]))
        yield span[:, start : start + length]
        start += length


def _overlap(expected: npt.NDArray[Any], actual: npt.NDArray[Any]) -> float:
    """Mean share of the ten likeliest tokens that both have."""
    count = min(10, expected.shape[-1])
    first = np.argpartition(-expected, count - 1, axis=-1)[..., :count]
    second = np.argpartition(-actual, count - 1, axis=-1)[..., :count]
    return float((first[..., :, None] == second[..., None, :]).any(-1).mean())

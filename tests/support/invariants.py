"""Invariants 1, 2 and 5 as assertions, for whatever runs the model: PyTorch, a graph, an engine."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from rillet.runtime.engines.base import Engine

from .streams import Result, Tokens, assert_same, real_tokens

__all__ = [
    "Case",
    "Run",
    "assert_causal",
    "assert_chunks_agree",
    "assert_every_cut_is_equal",
    "assert_repeatable",
    "assert_rows",
]

TOLERANCE = 1e-5

Case = tuple[int, int, list[int]]
"""A seed, a number of rows, and the lengths of chunks."""

Run = Callable[[Tokens, list[int]], Result]
"""Reads tokens ``[B, T]`` in chunks from zeros: all logits, and the state at the end."""


def assert_chunks_agree(run: Run, tokens: list[int], case: Case) -> None:
    """Any chunking gives the same logits and state."""
    seed, batch, chunks = case
    stream = real_tokens(tokens, seed, batch, sum(chunks))
    whole = run(stream, [sum(chunks)])
    assert_same(whole, run(stream, chunks), TOLERANCE)
    assert_same(whole, run(stream, [1] * sum(chunks)), TOLERANCE)


def assert_every_cut_is_equal(engine: Engine, tokens: Tokens) -> None:
    """Steps, chunks and single rows give the bits of one prefill of tokens ``[B, T]``."""
    rows, length = tokens.shape
    whole, steps, chunks = (engine.zero_state(rows) for _ in range(3))
    expected = engine.prefill(tokens, whole)
    stepped = np.stack([engine.step(column, steps).copy() for column in tokens.T], axis=1)
    np.testing.assert_array_equal(stepped, expected)
    cuts = [0, 1, 3, 20, 57, 58, length]
    parts = [engine.prefill(tokens[:, a:b], chunks) for a, b in itertools.pairwise(cuts)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), expected)
    states = [state.read() for state in (whole, steps, chunks)]
    for row in range(rows):
        alone = engine.zero_state()
        logits = engine.prefill(tokens[row : row + 1], alone)
        np.testing.assert_array_equal(logits[0], expected[row])
        for name, value in alone.read().items():
            for state in states:
                np.testing.assert_array_equal(value[0], state[name][row], err_msg=name)


def assert_repeatable(run: Run, tokens: list[int], case: Case) -> None:
    """The same chunking gives the same bits."""
    seed, batch, chunks = case
    stream = real_tokens(tokens, seed, batch, sum(chunks))
    assert_same(run(stream, chunks), run(stream, chunks), 0.0)


def assert_causal(
    run: Run, tokens: list[int], case: Case, where: float, other: int, vocab_size: int
) -> None:
    """Changing a token changes the logits from there on, and none before.

    Args:
        run: What is tested.
        tokens: Real text.
        case: The stream.
        where: Which token, as a share of the stream.
        other: How far away in the vocabulary the new token is.
        vocab_size: Number of tokens.
    """
    seed, batch, chunks = case
    stream = real_tokens(tokens, seed, batch, sum(chunks))
    changed = stream.copy()
    at = round(where * (stream.shape[1] - 1))
    changed[:, at] = (changed[:, at] + other) % vocab_size
    before, _ = run(stream, [sum(chunks)])
    after, _ = run(changed, [sum(chunks)])
    np.testing.assert_array_equal(before[:, :at], after[:, :at])
    assert np.abs(before[:, at] - after[:, at]).max() > 0


def assert_rows(
    run: Callable[[Tokens, list[int], int | None], Result], tokens: list[int], case: Case
) -> None:
    """Each row of a batch gives what it gives alone.

    Args:
        run: What is tested; the last argument is the row, or ``None`` for all rows.
        tokens: Real text.
        case: The stream.
    """
    seed, batch, chunks = case
    stream = real_tokens(tokens, seed, batch, sum(chunks))
    logits, state = run(stream, chunks, None)
    for row in range(batch):
        alone = run(stream[row : row + 1], chunks, row)
        own = {name: value[row : row + 1] for name, value in state.items()}
        assert_same((logits[row : row + 1], own), alone, TOLERANCE)

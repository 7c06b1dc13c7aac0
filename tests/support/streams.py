"""Streams, and ways to cut them into chunks, for the tests of the invariants."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from hypothesis import strategies as st

from rillet.runtime.engines.ort.host_engine import OnnxEngine
from rillet.train import DualCNN

State = dict[str, npt.NDArray[Any]]

Tokens = npt.NDArray[np.int64]

Result = tuple[npt.NDArray[np.float32], State]
"""Logits after each token, and the state at the end."""


@st.composite
def cut_streams(draw: st.DrawFn, most: int = 90) -> tuple[int, int, list[int]]:
    """Draw a seed for the tokens, a batch size, and the lengths of a stream's chunks."""
    chunks = draw(st.lists(st.integers(1, 40), min_size=1, max_size=6))
    while sum(chunks) > most:
        chunks.pop()
    return draw(st.integers(0, 2**31)), draw(st.integers(1, 4)), chunks or [most]


def real_tokens(tokens: list[int], seed: int, batch: int, length: int) -> Tokens:
    """Random pieces of a real text, ``[batch, length]``."""
    starts = np.random.default_rng(seed).integers(0, len(tokens) - length, batch)
    return np.stack([np.asarray(tokens[s : s + length], np.int64) for s in starts])


@torch.no_grad()
def run_torch(
    model: DualCNN,
    tokens: Tokens,
    chunks: list[int],
    learn: list[float] | None = None,
) -> Result:
    """Logits and final state of the PyTorch model after reading tokens in chunks."""
    state, parts, start = model.zero_state(len(tokens)), [], 0
    weights = None if learn is None else torch.tensor(learn)
    for length in chunks:
        chunk = torch.from_numpy(tokens[:, start : start + length])
        logits, state = model(chunk, state, weights)
        parts.append(logits.numpy())
        start += length
    return np.concatenate(parts, axis=1), {name: t.numpy() for name, t in state.items()}


def run_engine(engine: OnnxEngine, tokens: Tokens, chunks: list[int]) -> Result:
    """The same for an engine; the decode graph reads chunks of one token."""
    state, parts, start = engine.zero_state(len(tokens)), [], 0
    for length in chunks:
        chunk = tokens[:, start : start + length]
        if length == 1:
            parts.append(engine.step(chunk[:, 0], state).copy()[:, None])
        else:
            parts.append(engine.prefill(chunk, state))
        start += length
    return np.concatenate(parts, axis=1), state.read()


def assert_same(
    first: Result,
    second: Result,
    tolerance: float,
) -> None:
    """Assert that logits and every state tensor agree within a tolerance."""
    assert first[0].shape == second[0].shape  # others might be broadcast
    differences = {"logits": np.abs(first[0] - second[0]).max()}
    assert first[1].keys() == second[1].keys()
    for name, value in first[1].items():
        assert value.shape == second[1][name].shape, name
        differences[name] = np.abs(value.astype(np.float64) - second[1][name]).max()
    too_large = {name: d for name, d in differences.items() if not d <= tolerance}
    assert not too_large, f"differences above {tolerance}: {too_large}"

"""Invariants 1 to 5 of the model, in PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rillet.train import Checkpoint, DualCNN, state_shapes
from streams import assert_same, cut_streams, real_tokens, run_torch

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def tokens(small: Checkpoint, text: str) -> list[int]:
    return small.tokenizer.encode(text[:60_000])


@given(case=cut_streams())
def test_any_cut_gives_the_same_logits_and_state(
    small: Checkpoint, tokens: list[int], case: tuple[int, int, list[int]]
) -> None:
    seed, batch, chunks = case
    stream = real_tokens(tokens, seed, batch, sum(chunks))
    whole = run_torch(small.model, stream, [sum(chunks)])
    assert_same(whole, run_torch(small.model, stream, chunks), TOLERANCE)
    assert_same(whole, run_torch(small.model, stream, [1] * sum(chunks)), TOLERANCE)


@given(case=cut_streams())
def test_the_same_cut_gives_the_same_bits(
    small: Checkpoint, tokens: list[int], case: tuple[int, int, list[int]]
) -> None:
    seed, batch, chunks = case
    stream = real_tokens(tokens, seed, batch, sum(chunks))
    first, second = (run_torch(small.model, stream, chunks) for _ in range(2))
    assert_same(first, second, 0.0)


def test_a_chunk_longer_than_the_memory_equals_single_steps(nano: Checkpoint, text: str) -> None:
    """The default preset's blocks and ring are only overrun by a long chunk."""
    stream = np.asarray([nano.tokenizer.encode(text)[:2_300]], np.int64)
    whole = run_torch(nano.model, stream, [2_300])
    assert_same(whole, run_torch(nano.model, stream, [700, 1_500, 100]), TOLERANCE)
    first = run_torch(nano.model, stream[:, :150], [150])
    assert_same(first, run_torch(nano.model, stream[:, :150], [1] * 150), TOLERANCE)


@given(case=cut_streams(), where=st.floats(0, 1), other=st.integers(1, 50))
def test_a_token_changes_no_logit_before_it(
    small: Checkpoint,
    tokens: list[int],
    case: tuple[int, int, list[int]],
    where: float,
    other: int,
) -> None:
    seed, batch, chunks = case
    stream = real_tokens(tokens, seed, batch, sum(chunks))
    changed = stream.copy()
    at = round(where * (stream.shape[1] - 1))
    changed[:, at] = (changed[:, at] + other) % small.tokenizer.vocab_size
    before, _ = run_torch(small.model, stream, [sum(chunks)])
    after, _ = run_torch(small.model, changed, [sum(chunks)])
    np.testing.assert_array_equal(before[:, :at], after[:, :at])
    assert np.abs(before[:, at] - after[:, at]).max() > 0


def test_the_start_is_zeros_everywhere(small: Checkpoint) -> None:
    for name, tensor in small.model.zero_state(3).items():
        assert not tensor.any(), name


def test_an_empty_memory_has_no_say(small: Checkpoint, tokens: list[int]) -> None:
    """From zeros, and with nothing learnt, the prediction is the network's own."""
    stream = torch.tensor([tokens[:60]])
    with torch.no_grad():
        output = small.model.compute(stream, small.model.zero_state(), torch.zeros(1))
    network = torch.log_softmax(output.without_memory, dim=-1)
    torch.testing.assert_close(output.logits, network, atol=1e-5, rtol=0)
    assert not output.state["memory_keys"].any()


def test_the_memory_changes_the_prediction(small: Checkpoint, tokens: list[int]) -> None:
    stream = torch.tensor([tokens[:12] * 5])
    with torch.no_grad():
        output = small.model.compute(stream, small.model.zero_state())
    network = torch.log_softmax(output.without_memory, dim=-1)
    assert (output.logits - network).abs().max() > 1e-3


@given(case=cut_streams())
def test_no_state_grows(
    small: Checkpoint, tokens: list[int], case: tuple[int, int, list[int]]
) -> None:
    seed, batch, chunks = case
    stream = real_tokens(tokens, seed, batch, sum(chunks))
    _, state = run_torch(small.model, stream, chunks)
    wanted = {
        name: (batch, *shape) for name, (shape, _) in state_shapes(small.model.config).items()
    }
    assert {name: value.shape for name, value in state.items()} == wanted
    assert (state["position"] == sum(chunks)).all()


@given(case=cut_streams())
def test_rows_never_mix(
    small: Checkpoint, tokens: list[int], case: tuple[int, int, list[int]]
) -> None:
    seed, batch, chunks = case
    stream = real_tokens(tokens, seed, batch, sum(chunks))
    learn = np.random.default_rng(seed).integers(0, 2, batch).astype(np.float32)
    logits, state = run_torch(small.model, stream, chunks, learn.tolist())
    for row in range(batch):
        alone = run_torch(small.model, stream[row : row + 1], chunks, [float(learn[row])])
        own = {name: value[row : row + 1] for name, value in state.items()}
        assert_same((logits[row : row + 1], own), alone, TOLERANCE)


def test_wave_buffer_ends_with_the_newest_wave(small: Checkpoint, tokens: list[int]) -> None:
    """Windows count the current step: the buffer after a step is what that step read."""
    model: DualCNN = small.model
    _, before = run_torch(model, np.asarray([tokens[:30]]), [30])
    _, after = run_torch(model, np.asarray([tokens[:31]]), [30, 1])
    np.testing.assert_array_equal(before["wave_buffer"][:, 1:], after["wave_buffer"][:, :-1])
    assert np.abs(after["wave_buffer"][:, -1] - before["wave_buffer"][:, -1]).max() > 0


def test_the_memory_is_circular(small: Checkpoint, tokens: list[int]) -> None:
    """The entry of step p, key of the state before it and its token, is in slot p mod M."""
    model, capacity = small.model, small.model.config.memory
    length = 2 * capacity + 3
    states = []
    state = model.zero_state()
    with torch.no_grad():
        for token in tokens[:length]:
            states.append(state["reservoir"])
            _, state = model(torch.tensor([[token]]), state)
        for step in range(length - capacity, length):
            assert state["memory_tokens"][0, step % capacity] == tokens[step]
            torch.testing.assert_close(
                state["memory_keys"][0, step % capacity], model.memory.key(states[step])[0]
            )

"""Invariants 1 to 6 of every variant of the model, in PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rillet.train import Checkpoint, state_shapes
from support.invariants import assert_causal, assert_chunks_agree, assert_repeatable, assert_rows
from support.models import VARIANTS
from support.streams import Result, Tokens, assert_same, cut_streams, real_tokens, run_torch

TOLERANCE = 1e-5
REMEMBERING = [name for name, changes in VARIANTS.items() if changes.get("memory") != 0]
KEYED = [name for name in REMEMBERING if VARIANTS[name].get("memory_key") != "contexts"]
RESONATING = [
    "every part",
    *(name for name, changes in VARIANTS.items() if changes.get("reservoir") != "none"),
]


def every_part_and(name: str, variants: Iterable[str]) -> object:
    """A fixture of the small model with every part, and of some variants of it."""

    @pytest.fixture(scope="module", name=name, params=["every part", *variants])
    def model_of(
        request: pytest.FixtureRequest,
        small: Checkpoint,
        variant_checkpoint: Callable[[str], Checkpoint],
    ) -> Checkpoint:
        return variant_checkpoint(request.param) if request.param in VARIANTS else small

    return model_of


variant = every_part_and("variant", VARIANTS)
remembering = every_part_and("remembering", REMEMBERING)
keyed = every_part_and("keyed", KEYED)


@pytest.fixture(scope="module")
def tokens(small: Checkpoint, text: str) -> list[int]:
    return small.tokenizer.encode(text[:60_000])


@given(case=cut_streams())
def test_any_cut_gives_the_same_logits_and_state(
    variant: Checkpoint, tokens: list[int], case: tuple[int, int, list[int]]
) -> None:
    assert_chunks_agree(partial(run_torch, variant.model), tokens, case)


@given(case=cut_streams())
def test_the_same_cut_gives_the_same_bits(
    variant: Checkpoint, tokens: list[int], case: tuple[int, int, list[int]]
) -> None:
    assert_repeatable(partial(run_torch, variant.model), tokens, case)


def test_a_chunk_longer_than_the_memory_equals_single_steps(nano: Checkpoint, text: str) -> None:
    """Only a long chunk exceeds the default preset's blocks and memory."""
    stream = np.asarray([nano.tokenizer.encode(text)[:2_300]], np.int64)
    whole = run_torch(nano.model, stream, [2_300])
    assert_same(whole, run_torch(nano.model, stream, [700, 1_500, 100]), TOLERANCE)
    first = run_torch(nano.model, stream[:, :150], [150])
    assert_same(first, run_torch(nano.model, stream[:, :150], [1] * 150), TOLERANCE)


@given(case=cut_streams(), where=st.floats(0, 1), other=st.integers(1, 50))
def test_a_token_changes_no_logit_before_it(
    variant: Checkpoint,
    tokens: list[int],
    case: tuple[int, int, list[int]],
    where: float,
    other: int,
) -> None:
    size = variant.tokenizer.vocab_size
    assert_causal(partial(run_torch, variant.model), tokens, case, where, other, size)


def test_an_empty_memory_has_no_influence(remembering: Checkpoint, tokens: list[int]) -> None:
    """With nothing stored in the memory, the prediction is that of the network."""
    stream = torch.tensor([tokens[:60]])
    with torch.no_grad():
        output = remembering.model.compute(stream, remembering.model.zero_state(), torch.zeros(1))
    network = torch.log_softmax(output.without_memory, dim=-1)
    torch.testing.assert_close(output.logits, network, atol=1e-5, rtol=0)
    stored = [name for name in ("memory_keys", "memory_slots") if name in output.state]
    assert not any(output.state[name].any() for name in stored)
    assert stored


def test_the_memory_changes_the_prediction(remembering: Checkpoint, tokens: list[int]) -> None:
    stream = torch.tensor([tokens[:12] * 5])
    with torch.no_grad():
        output = remembering.model.compute(stream, remembering.model.zero_state())
    network = torch.log_softmax(output.without_memory, dim=-1)
    assert (output.logits - network).abs().max() > 1e-3


@given(case=cut_streams())
def test_no_state_grows(
    variant: Checkpoint, tokens: list[int], case: tuple[int, int, list[int]]
) -> None:
    seed, batch, chunks = case
    stream = real_tokens(tokens, seed, batch, sum(chunks))
    _, state = run_torch(variant.model, stream, chunks)
    expected = {
        name: (batch, *shape) for name, (shape, _) in state_shapes(variant.model.config).items()
    }
    assert {name: value.shape for name, value in state.items()} == expected
    assert (state["position"] == sum(chunks)).all()


@given(case=cut_streams())
def test_rows_never_mix(
    variant: Checkpoint, tokens: list[int], case: tuple[int, int, list[int]]
) -> None:
    seed, batch, _ = case
    learn = np.random.default_rng(seed).integers(0, 2, batch).astype(np.float32).tolist()

    def run(stream: Tokens, chunks: list[int], row: int | None) -> Result:
        return run_torch(variant.model, stream, chunks, learn if row is None else [learn[row]])

    assert_rows(run, tokens, case)


@pytest.mark.parametrize("variant", RESONATING, indirect=True)
def test_a_small_difference_is_forgotten(variant: Checkpoint, tokens: list[int]) -> None:
    """Invariant 6: a difference of a thousandth in the state vanishes within 300 steps."""
    stream = torch.tensor([tokens[:400]])
    noise = torch.randn(1, variant.model.config.reservoir_size, generator=torch.manual_seed(0))
    with torch.no_grad():
        _, state = variant.model(stream[:, :100], variant.model.zero_state())
        moved = {**state, "reservoir": state["reservoir"] + 1e-3 * noise}
        _, state = variant.model(stream[:, 100:], state)
        _, moved = variant.model(stream[:, 100:], moved)
    assert (state["reservoir"] - moved["reservoir"]).abs().max() < 1e-6


def test_wave_buffer_ends_with_the_newest_wave(small: Checkpoint, tokens: list[int]) -> None:
    """Windows include the current step: the buffer after a step is the window of that step."""
    model = small.model
    _, before = run_torch(model, np.asarray([tokens[:30]]), [30])
    _, after = run_torch(model, np.asarray([tokens[:31]]), [30, 1])
    np.testing.assert_array_equal(before["wave_buffer"][:, 1:], after["wave_buffer"][:, :-1])
    assert np.abs(after["wave_buffer"][:, -1] - before["wave_buffer"][:, -1]).max() > 0


def test_the_memory_is_circular(keyed: Checkpoint, tokens: list[int]) -> None:
    """Slot p mod M holds the entry of step p: its token, and the key of the state before it."""
    model, capacity = keyed.model, keyed.model.config.memory
    length = 2 * capacity + 3
    stream = torch.tensor([tokens[:length]])
    with torch.no_grad():
        output = model.compute(stream, model.zero_state())
    assert output.keys is not None
    for step in range(length - capacity, length):
        assert output.state["memory_tokens"][0, step % capacity] == tokens[step]
        stored = output.state["memory_keys"][0, step % capacity]
        torch.testing.assert_close(stored, output.keys[0, step - 1])


def test_a_reservoir_key_depends_on_the_state_alone(small: Checkpoint, tokens: list[int]) -> None:
    model, state = small.model, small.model.zero_state()
    assert model.memory is not None
    with torch.no_grad():
        for token in tokens[:5]:
            output = model.compute(torch.tensor([[token]]), state)
            state = output.state
            assert output.keys is not None
            torch.testing.assert_close(output.keys[:, 0], model.memory.key(state["reservoir"]))


def test_a_suffix_key_depends_on_the_last_tokens_alone(
    variant_checkpoint: Callable[[str], Checkpoint], tokens: list[int]
) -> None:
    """The same five tokens give the same key, bit for bit, whatever came before."""
    model = variant_checkpoint("keyed by the suffix").model
    first, second = tokens[:40], [*tokens[50:75], *tokens[15:40]]
    keys = []
    for stream in (first, second):
        with torch.no_grad():
            output = model.compute(torch.tensor([stream]), model.zero_state())
        assert output.keys is not None
        keys.append(output.keys[0, -20:])
    assert first[-5:] == second[-5:]
    torch.testing.assert_close(keys[0], keys[1], rtol=0, atol=0)
    other = [*first[:-5], (first[-5] + 1) % model.config.vocab_size, *first[-4:]]
    with torch.no_grad():
        output = model.compute(torch.tensor([other]), model.zero_state())
    assert output.keys is not None
    closeness = (output.keys[0, -1] @ keys[0][-1]).item()
    assert 0.5 < closeness < 1 - 1e-3

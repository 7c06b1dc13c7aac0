"""Sessions: reading, learning, forgetting, copying, rolling back and closing."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rillet.runtime import (
    EngineError,
    Model,
    Session,
    UnknownCharacterWarning,
    UsageError,
    load,
)
from rillet.train import Checkpoint


def assert_same(first: Session, second: Session) -> None:
    """Both streams are equal, bit for bit."""
    assert first.position == second.position
    np.testing.assert_array_equal(first.logits, second.logits)
    expected = second.state
    for name, value in first.state.items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


def test_a_long_text_is_read_in_constant_memory(small_model: Model, text: str) -> None:
    """How the text is cut into pieces makes no difference."""
    long = text[:100_000]
    whole = small_model.session()
    tracemalloc.start()
    with pytest.warns(UnknownCharacterWarning):
        tokens = whole.feed(long)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert tokens == len(small_model.tokenizer.encode(long))
    assert peak < 12e6  # all logits would take 40 MB
    pieces = small_model.session()
    with pytest.warns(UnknownCharacterWarning):
        pieces.feed(long[start : start + 30_000] for start in range(0, len(long), 30_000))
    assert_same(whole, pieces)


def test_a_text_that_fails_midway_leaves_the_stream_unchanged(small_model: Model) -> None:
    session, same = small_model.session(), small_model.session()
    for stream in (session, same):
        stream.feed("The statement")

    def broken() -> object:
        yield "x" * 70_000
        yield 5

    with pytest.raises(UsageError, match="a piece of type int"):
        session.feed(broken())  # type: ignore[arg-type]
    assert_same(session, same)


@pytest.mark.parametrize(
    "tokens", [[0.5], ["a"], [True], [-1], [10**30], [[1]], [None], [2**40]], ids=str
)
def test_invalid_tokens_are_refused(small_model: Model, tokens: list[int]) -> None:
    session = small_model.session()
    with pytest.raises(UsageError, match="tokens must"):
        session.feed_tokens(tokens)
    with pytest.raises(UsageError, match="tokens must"):
        session.step(tokens[0])
    assert session.position == 0


def test_stepping_by_hand_equals_generating(small_model: Model) -> None:
    session, writer = small_model.session(), small_model.session()
    session.feed("The ")
    writer.feed("The ")
    for generated in writer.tokens(max_new_tokens=30, seed=2):
        logits = session.step(generated.token)
    np.testing.assert_array_equal(logits, writer.logits)
    assert_same(session, writer)


def test_a_fork_is_independent(small_model: Model) -> None:
    session = small_model.session()
    session.feed("The statement")
    twin = session.fork()
    assert_same(session, twin)
    alone = session.fork().generate(max_new_tokens=40, seed=1)
    assert twin.generate(max_new_tokens=40, seed=2) != alone
    assert session.generate(max_new_tokens=40, seed=1) == alone


def test_samples_leave_the_session_unchanged(small_model: Model) -> None:
    session = small_model.session()
    session.feed("The statement")
    texts = session.samples(3, max_new_tokens=20, seed=5)
    assert session.position == 13
    for index, text in enumerate(texts):
        assert session.fork().generate(max_new_tokens=20, seed=5 + index) == text
    assert len(set(texts)) == 3
    with pytest.raises(UsageError, match="n is 0"):
        session.samples(0)


@given(kept=st.text("The staemn", max_size=40), rejected=st.text("The staemn", max_size=40))
def test_a_rollback_undoes_everything(small_model: Model, kept: str, rejected: str) -> None:
    session, same = small_model.session("all"), small_model.session("all")
    for stream in (session, same):
        stream.feed(kept)
    checkpoint = session.checkpoint()
    for _ in range(2):  # a checkpoint can be used again
        session.feed(rejected)
        session.generate(max_new_tokens=5, seed=0)
        session.rollback(checkpoint)
        assert_same(session, same)
    assert session.generate(max_new_tokens=10, seed=1) == same.generate(max_new_tokens=10, seed=1)


def test_a_rollback_restores_the_generation(small_model: Model) -> None:
    session = small_model.session()
    session.feed("The ")
    stream = session.stream(max_new_tokens=60, seed=3, temperature=1.0)
    first = [next(stream) for _ in range(20)]
    checkpoint = session.checkpoint()
    rest = "".join(stream)
    session.rollback(checkpoint)
    assert "".join(session.resume()) == rest
    assert len(first) + len(rest) == 60


def test_a_reset_starts_a_new_stream(small_model: Model) -> None:
    session = small_model.session("all")
    session.feed("The statement")
    session.generate(max_new_tokens=10)
    session.reset()
    assert session.logits is None
    assert_same(session, small_model.session("all"))
    assert session.learn_mode == "all"
    with pytest.raises(UsageError, match="no generation to resume"):
        session.resume()


def test_learning_changes_only_the_memory(small_model: Model) -> None:
    notes = "zebra quagga zorilla. " * 2
    session, plain = small_model.session(), small_model.session()
    for stream in (session, plain):
        stream.feed("A ")
    assert session.learn(notes) == len(small_model.tokenizer.encode(notes))
    assert session.position == plain.position == 2
    np.testing.assert_array_equal(session.logits, plain.logits)
    before, after = plain.state, session.state
    for name, value in after.items():
        same = np.array_equal(value, before[name])
        assert same == (name not in ("memory_keys", "memory_tokens", "position")), name
    # The memory holds what a stream of its own would have stored.
    alone = small_model.session()
    alone.feed(notes)
    slots = 20 - 3  # without the oldest entries and the first, which has the key of the start
    keys = [np.sort(s["memory_keys"][0], axis=0)[-slots:] for s in (after, alone.state)]
    np.testing.assert_allclose(*keys, atol=1e-6)


def test_a_learnt_text_becomes_likelier(nano_bundle: Path) -> None:
    model = load(nano_bundle)
    notes = "Mistress Quizzlebock keeps seventeen ferrets in the vestibule. "
    before, after = model.session(), model.session()
    after.learn(notes)
    losses = []
    for session in (before, after):
        session.feed("\n")
        loss = 0.0
        for token in model.tokenizer.encode(notes):
            assert session.logits is not None
            loss -= float(session.logits[token])
            session.step(token)
        losses.append(loss / len(notes))
    assert losses[1] < losses[0] - 0.3, losses


def test_forgetting_empties_only_the_memory(small_model: Model) -> None:
    session, never = small_model.session(), small_model.session("none")
    for stream in (session, never):
        stream.feed("The statement is a name")
    session.forget()
    assert not session.state["memory_keys"].any()
    for name in ("reservoir", "wave_buffer", "position"):
        np.testing.assert_array_equal(session.state[name], never.state[name])
    # An empty memory has no influence, as if nothing had ever been learnt.
    np.testing.assert_allclose(session.step(3), never.step(3), atol=1e-5)


def test_a_session_without_a_memory_stores_nothing(small_model: Model) -> None:
    session, none = small_model.session("all", memory=False), small_model.session("none")
    for stream in (session, none):
        stream.feed("The statement is a name")
        stream.generate(max_new_tokens=20, seed=1)
    assert_same(session, none)
    assert not session.state["memory_keys"].any()
    assert session.fork().memory is False
    with pytest.raises(UsageError, match="memory=False"):
        session.learn("notes")
    text = small_model.generate("The ", memory=False, max_new_tokens=30, seed=1)
    assert text == small_model.generate("The ", learn="none", max_new_tokens=30, seed=1)


def test_a_model_without_a_memory(variant_bundle: Callable[[str], Path]) -> None:
    session = load(variant_bundle("no memory")).session()
    session.feed("The statement")
    session.forget()
    with pytest.raises(UsageError, match="exported without one"):
        session.learn("notes")
    assert session.fork().generate(max_new_tokens=5, seed=0)


def test_a_closed_session_cannot_be_used(small_model: Model) -> None:
    with small_model.session() as session:
        session.feed("The")
        stream = session.stream(max_new_tokens=5)
        next(stream)
    for use in (
        lambda: session.feed("The"),
        lambda: session.step(1),
        lambda: session.generate(max_new_tokens=1),
        lambda: session.state,
        session.fork,
        session.checkpoint,
        session.resume,
        lambda: next(stream),
    ):
        with pytest.raises(UsageError, match="the session is closed; open a new one"):
            use()
    session.close()


def test_a_closed_model_releases_its_graphs_and_reloads_them(small_bundle: Path) -> None:
    with load(small_bundle, "cpu") as model:
        before = model.generate("The", max_new_tokens=5, seed=1)
    assert not model.engine._sessions
    assert model.generate("The", max_new_tokens=5, seed=1) == before


@pytest.mark.slow
def test_thousands_of_sessions_leak_nothing(small_model: Model) -> None:
    def come_and_go(count: int) -> None:
        for _ in range(count):
            session = small_model.session()
            session.feed("The")
            next(session.tokens(max_new_tokens=3, stop=["x"], repetition_penalty=1.1))
            session.fork().close()

    come_and_go(300)
    gc.collect()
    tracemalloc.start()
    come_and_go(300)
    gc.collect()
    before, _ = tracemalloc.get_traced_memory()
    come_and_go(1000)
    assert gc.collect() == 0  # no reference cycles
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 50_000


def test_pytorch_and_a_session_agree_over_several_chunks(
    small_model: Model, small: Checkpoint
) -> None:
    import torch

    text = "The statement is a name. " * 40  # several chunks of the prefill graph
    session = small_model.session()
    session.feed(text)
    tokens = torch.tensor([small.tokenizer.encode(text)])
    with torch.no_grad():
        logits, _ = small.model(tokens, small.model.zero_state())
    np.testing.assert_allclose(session.logits, logits[0, -1].numpy(), atol=1e-4)


def test_resizing_a_state_keeps_the_remaining_rows(small_model: Model) -> None:
    """Rows that a state gains are zeros."""
    engine = small_model.engine
    state = engine.zero_state(0)
    streams = [small_model.session() for _ in range(5)]
    for index, stream in enumerate(streams):
        stream.feed("The statement"[: index + 3])
        state.resize(index + 1)
        state.copy_row(index, stream._stream.state, 0)
    tokens = np.arange(5)
    together = engine.step(tokens, state, np.asarray([1, 0, 1, 0, 1], np.float32)).copy()
    for index, stream in enumerate(streams):
        alone = engine.step(tokens[index : index + 1], stream._stream.state, float(index % 2 == 0))
        np.testing.assert_allclose(alone[0], together[index], atol=1e-5)
    state.resize(2)
    state.resize(3)
    values = state.read()
    for name, value in streams[1].state.items():
        np.testing.assert_allclose(values[name][1], value[0], atol=1e-5, err_msg=name)
        assert not values[name][2].any()
    with pytest.raises(EngineError, match="tokens must lie between"):
        engine.step(np.asarray([0, 1, 10_000]), state)

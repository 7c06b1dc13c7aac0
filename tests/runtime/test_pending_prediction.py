"""After ``learn`` and ``forget``, the next prediction is made with the memory as it is then.

However the stream came to stand where it stands, it must predict what a stream predicts that
learnt or forgot one token earlier.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from rillet.runtime import EngineError, Model, Session, UsageError, load
from rillet.runtime.engines.fallback import FallbackEngine
from rillet.runtime.engines.ort.device_engine import OnnxDeviceEngine
from rillet.runtime.engines.ort.host_engine import OnnxEngine

MODELS = Path(__file__).parents[2] / "models"
PROMPT = "Our cat is called "


@pytest.fixture(scope="module", params=["contexts", "reservoir"])
def model(request: pytest.FixtureRequest) -> Model:
    """A model with either memory."""
    return load(MODELS / {"contexts": "shakespeare-nano", "reservoir": "bible-nano"}[request.param])


@pytest.fixture(scope="module")
def contexts() -> Model:
    return load(MODELS / "shakespeare-nano")


Way = Callable[[Session, Path], Session]


def fed(session: Session, folder: Path) -> Session:
    session.feed(PROMPT)
    return session


def fed_in_tokens(session: Session, folder: Path) -> Session:
    for token in session.model.tokenizer.encode(PROMPT):
        session.feed_tokens([token])
    return session


def written(session: Session, folder: Path) -> Session:
    session.feed(PROMPT)
    session.generate(max_new_tokens=40, seed=1)
    return session


def written_in_graph(session: Session, folder: Path) -> Session:
    session.feed(PROMPT)
    session.generate(max_new_tokens=40, seed=1, in_graph=True)
    return session


def stopped_in_graph(session: Session, folder: Path) -> Session:
    session.feed(PROMPT)
    text = session.fork().generate(max_new_tokens=40, seed=1)
    session.generate(max_new_tokens=40, seed=1, in_graph=True, stop=text[20:24])
    return session


def forked(session: Session, folder: Path) -> Session:
    return fed(session, folder).fork()


def rolled_back(session: Session, folder: Path) -> Session:
    mark = fed(session, folder).checkpoint()
    session.feed("and then something else")
    session.rollback(mark)
    return session


def scored(session: Session, folder: Path) -> Session:
    fed(session, folder).score("something else")
    return session


def saved(session: Session, folder: Path) -> Session:
    fed(session, folder).save(folder / "state")
    return session.model.restore(folder / "state")


def batched(session: Session, folder: Path) -> Session:
    batch = session.model.batch()
    others = [session.model.session() for _ in range(5)]
    for other in others:
        other.feed("x")
    fed(session, folder)
    for one in [others[0], session, *others[1:]]:
        batch.join(one, seed=3)
    for _ in range(4):
        batch.write()
    batch.leave(others[0])
    batch.leave(session)
    return session


def joined_and_left(session: Session, folder: Path) -> Session:
    batch = session.model.batch()
    batch.join(fed(session, folder))
    batch.leave(session)
    return session


def failed(session: Session, folder: Path) -> Session:
    fed(session, folder)
    with pytest.raises(UsageError):
        session.generate(regex="[0-9]", bad_words=[str(digit) for digit in range(10)])
    return session


WAYS: list[Way] = [
    fed,
    fed_in_tokens,
    written,
    written_in_graph,
    stopped_in_graph,
    forked,
    rolled_back,
    scored,
    saved,
    batched,
    joined_and_left,
    failed,
]


@contextmanager
def lost_after_steps(
    model: Model, which: Callable[[object], bool] = lambda learn: True
) -> Iterator[None]:
    """Let the device be lost once it has computed a step; ``which`` is asked with its ``learn``."""
    engine, step = model.engine, model.engine.step

    def lost(tokens, state, learn=1.0):  # type: ignore[no-untyped-def]
        logits = step(tokens, state, learn)
        if which(learn):
            raise EngineError("the step was computed, and then the device was lost")
        return logits

    engine.step = lost  # type: ignore[method-assign]
    try:
        yield
    finally:
        del engine.step


def fact(session: Session) -> str:
    """What the stream ends with goes on in a way that the network would not think of."""
    return (session.model.tokenizer.decode(list(session._stream.history.recent)) + "Zounds! ") * 3


def expected(session: Session, change: Callable[[Session], object]) -> npt.NDArray[np.float32]:
    """What is predicted if the change comes one token earlier; that token is not learnt."""
    *before, last = session._stream.history.recent
    earlier = session.model.session("none")
    earlier.feed_tokens(before)
    change(earlier)
    earlier.feed_tokens([last])
    assert earlier.logits is not None
    return earlier.logits


def nothing_is_remembered(session: Session) -> bool:
    """Whether nothing is left in the memory, and nothing that was looked up in it."""
    state = session.state
    if "memory_keys" in state:
        return not state["memory_keys"].any()
    return not state["memory_slots"].any() and not state["context_slots"][:, :, [1, 3, 4, 5]].any()


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_what_was_learnt_counts_at_once(model: Model, way: Way, tmp_path: Path) -> None:
    session = way(model.session("none"), tmp_path)
    before, position, text = session.logits, session.position, fact(session)
    session.learn(text)
    after = expected(session, lambda one: one.learn(text))
    np.testing.assert_allclose(session.logits, after, atol=1e-4)
    assert np.abs(before - after).max() > 0.1
    assert session.position == position


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_what_was_forgotten_counts_no_more(model: Model, way: Way, tmp_path: Path) -> None:
    session = way(model.session(), tmp_path)
    session.learn(fact(session))
    before = session.logits
    session.forget()
    after = expected(session, lambda one: None)
    np.testing.assert_allclose(session.logits, after, atol=1e-4)
    assert np.abs(before - after).max() > 0.1
    assert nothing_is_remembered(session)


def test_a_step_that_fails_leaves_the_prediction_repeatable(model: Model) -> None:
    session = model.session()
    session.feed(PROMPT)
    with lost_after_steps(model), pytest.raises(EngineError):
        session.step(3)
    session.forget()
    np.testing.assert_allclose(session.logits, expected(session, lambda one: None), atol=1e-4)


def test_learning_that_fails_changes_nothing(model: Model) -> None:
    session = model.session()
    session.feed(PROMPT)
    logits, state = session.logits, session.state
    # What is not learnt is the last token, read again.
    with lost_after_steps(model, lambda learn: np.ndim(learn) == 0 and learn == 0.0):
        for change in (lambda: session.learn(fact(session)), session.forget):
            with pytest.raises(EngineError):
                change()
    np.testing.assert_array_equal(session.logits, logits)
    for name, value in state.items():
        np.testing.assert_array_equal(session.state[name], value)


def test_nothing_read_is_nothing_to_predict(model: Model) -> None:
    session = model.session()
    session.learn(fact(session))
    session.forget()
    assert session.logits is None


def test_a_device_keeps_what_the_last_step_read(model: Model) -> None:
    """The state in lanes of buffers, and one that moves between engines, do as the host's."""
    bundle = model.bundle
    host = OnnxEngine(bundle)
    device = OnnxDeviceEngine(bundle, "cpu")
    fallback = FallbackEngine(OnnxEngine(bundle), [("cpu", lambda: host)])
    rng = np.random.default_rng(0)
    tokens = rng.integers(host.vocab_size, size=(2, 300))
    reference = host.zero_state(2)
    states = [(device, device.zero_state(2)), (fallback, fallback.zero_state(2))]
    for column in tokens.T:
        host.step(column, reference)
        for engine, state in states:
            engine.step(column, state)
    grown = [(engine, engine.zero_state(0)) for engine, _ in states]
    for (_, state), (_, copy) in zip(states, grown, strict=True):
        for row in (1, 0):
            copy.resize(copy.batch + 1)
            copy.copy_row(copy.batch - 1, state, row)
    before = reference.read_before()
    assert set(before) == {row.name for row in bundle.state if not row.name.startswith("memory_")}
    for _, state in states:
        for name, value in state.read_before().items():
            np.testing.assert_allclose(value, before[name], atol=1e-5, err_msg=name)
    for _, state in grown:
        for name, value in state.read_before().items():
            np.testing.assert_allclose(value, before[name][::-1], atol=1e-5, err_msg=name)


def test_a_lost_device_does_not_lose_what_the_last_step_read(model: Model) -> None:
    bundle = model.bundle
    first, second = OnnxEngine(bundle), OnnxEngine(bundle)
    engine = FallbackEngine(first, [("cpu", lambda: second)])
    state, reference = engine.zero_state(), second.zero_state()
    for token in range(40):
        engine.step(np.asarray([token]), state)
        second.step(np.asarray([token]), reference)

    def lost(*_: object, **__: object) -> None:
        raise EngineError("the device is lost")

    first.step = lost  # type: ignore[method-assign, assignment]
    state.inner.read = lost  # type: ignore[method-assign, assignment]
    undo = state.undo_point()
    with pytest.warns(RuntimeWarning, match="continues on"):
        engine.step(np.asarray([5]), state)
    undo()
    for name, value in state.read_before().items():
        np.testing.assert_allclose(value, reference.read_before()[name], atol=1e-5, err_msg=name)


def test_a_file_of_the_earlier_version_is_restored(model: Model, tmp_path: Path) -> None:
    """It has not kept what its last step read: the prediction changes with the next token."""
    session = model.session()
    session.feed(PROMPT)
    session._stream._repeatable = False
    session.save(tmp_path / "old")
    restored = load(model.bundle.path).restore(tmp_path / "old")
    np.testing.assert_array_equal(restored.logits, session.logits)
    restored.forget()
    np.testing.assert_array_equal(restored.logits, session.logits)


def test_an_undone_step_leaves_no_slot_behind(contexts: Model) -> None:
    """The table has one buffer, so the step has stored: the next one puts back what was there."""
    session, twin = contexts.session(), contexts.session()
    for one in (session, twin):
        one.feed(PROMPT)
    with lost_after_steps(contexts), pytest.raises(EngineError):
        session.feed_tokens([3])
    for one in (session, twin):
        one.generate(max_new_tokens=5, seed=1)
    for name, value in twin.state.items():
        np.testing.assert_array_equal(session.state[name], value, err_msg=name)

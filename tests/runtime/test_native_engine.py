"""The native engine computes what PyTorch computes, and keeps an engine's promises."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from rillet.export.parity.graph_parity import compare_graph
from rillet.runtime import EngineError, load
from rillet.runtime.engines.base import Values
from rillet.runtime.engines.native.engine import NativeEngine
from rillet.runtime.engines.native.state import NativeState
from rillet.runtime.golden import verify_golden
from rillet.train import Checkpoint
from support.invariants import assert_every_cut_is_equal
from support.models import VARIANTS
from support.native import needs_native, weights_bundle

pytestmark = needs_native

TOLERANCE = 3e-5
Engines = Callable[[str], tuple[Checkpoint, NativeEngine]]


@pytest.fixture(scope="module")
def engines(
    variant_checkpoint: Callable[[str], Checkpoint],
    small: Checkpoint,
    nano: Checkpoint,
    tmp_path_factory: pytest.TempPathFactory,
) -> Engines:
    """Each variant's checkpoint with the native engine of its weights."""

    @functools.cache
    def make(name: str) -> tuple[Checkpoint, NativeEngine]:
        given = {"small": small, "nano": nano}
        checkpoint = given[name] if name in given else variant_checkpoint(name)
        folder = tmp_path_factory.mktemp("weights")
        return checkpoint, NativeEngine(weights_bundle(checkpoint, folder))

    return make


every_model = pytest.mark.parametrize("name", ["small", *VARIANTS])


def texts(checkpoint: Checkpoint, text: str, length: int) -> npt.NDArray[np.int64]:
    """Three rows of real text, ``[3, length]``."""
    tokens = checkpoint.tokenizer.encode(text[: 6 * length])
    return np.asarray([tokens[at : at + length] for at in (0, length, 2 * length)], np.int64)


@every_model
@pytest.mark.parametrize("graph", ["decode", "prefill"])
def test_computes_what_pytorch_computes(name: str, graph: str, engines: Engines, text: str) -> None:
    checkpoint, engine = engines(name)
    tokens = texts(checkpoint, text, 700)
    random = np.random.default_rng(3).integers(0, engine.vocab_size, (2, 300))
    for what in (tokens, random):
        report = compare_graph(checkpoint.model, engine, graph, what, "text", TOLERANCE)
        assert report.greedy_differences == 0
        for output, difference in report.outputs.items():
            assert difference.largest <= TOLERANCE, output


def test_computes_what_pytorch_computes_at_the_default_size(engines: Engines, text: str) -> None:
    """Including a kernel memory that has gone round."""
    checkpoint, engine = engines("nano")
    tokens = texts(checkpoint, text, 1_400)[:1]
    report = compare_graph(checkpoint.model, engine, "prefill", tokens, "text", TOLERANCE)
    assert report.greedy_differences == 0
    assert max(difference.largest for difference in report.outputs.values()) <= TOLERANCE


@every_model
def test_any_cut_and_any_batch_give_the_same_bits(name: str, engines: Engines, text: str) -> None:
    checkpoint, engine = engines(name)
    assert_every_cut_is_equal(engine, texts(checkpoint, text, 90))


@every_model
def test_a_state_travels_through_its_tensors(name: str, engines: Engines, text: str) -> None:
    checkpoint, engine = engines(name)
    tokens = texts(checkpoint, text, 60)[:1]
    state, copy = engine.zero_state(), engine.zero_state()
    for token in tokens[0, :40]:
        engine.step(token[None], state)
    copy.write(state.read())
    copy.write_before(state.read_before())
    assert_same(copy.read(), state.read())
    assert_same(copy.read_before(), state.read_before())
    for token in tokens[0, 40:]:
        expected = engine.step(token[None], state)
        np.testing.assert_array_equal(engine.step(token[None], copy), expected)


@every_model
def test_steps_are_undone_and_kept(name: str, engines: Engines, text: str) -> None:
    """At every place of the windows' buffers, and across their moves to the front."""
    checkpoint, engine = engines(name)
    state, twin = engine.zero_state(), engine.zero_state()
    for token, other in texts(checkpoint, text, 40)[:2].T:
        before, undo = state.read(), state.undo_point()
        engine.step(other[None], state)
        assert_same(state.read_before(), small_tensors(before))
        undo()
        undo()  # undoes no second step
        assert_same(small_tensors(state.read()), small_tensors(before))
        assert_same(state.read_before(), twin.read_before())
        expected = engine.step(token[None], twin)
        np.testing.assert_array_equal(engine.step(token[None], state), expected)
        assert_same(state.read(), twin.read())


def test_what_a_step_read_can_be_anything(engines: Engines, text: str) -> None:
    """Written tensors come back, whether or not they fit the state now; a step makes them void."""
    _, engine = engines("small")
    random = np.random.default_rng(0)
    state = engine.zero_state(2)
    engine.step(np.asarray([1, 2]), state)
    now, before = state.read(), state.read_before()
    foreign = {
        name: (value + (random.random(value.shape) if name != "position" else 1)).astype(
            value.dtype
        )
        for name, value in before.items()
    }
    state.write_before(foreign)
    assert_same(state.read_before(), foreign)
    state.write(now)
    assert_same(state.read_before(), foreign)
    other = engine.zero_state()
    other.copy_row(0, state, 1)
    assert_same(other.read_before(), {name: value[1:] for name, value in foreign.items()})
    undo = state.undo_point()
    engine.step(np.asarray([3, 3]), state)
    assert_same(state.read_before(), small_tensors(now))
    undo()
    assert_same(state.read_before(), foreign)


def test_nothing_is_stored_without_learning(engines: Engines, text: str) -> None:
    for name in ("small", "memory of contexts"):
        checkpoint, engine = engines(name)
        tokens = texts(checkpoint, text, 50)
        state = engine.zero_state(3)
        engine.prefill(tokens, state, np.asarray([1.0, 0.0, 1.0]))
        memory = "memory_keys" if name == "small" else "memory_slots"
        stored = state.read()[memory].reshape(3, -1)
        assert [bool(row.any()) for row in stored] == [True, False, True]


def test_rows_come_and_go(engines: Engines, text: str) -> None:
    checkpoint, engine = engines("small")
    tokens = texts(checkpoint, text, 30)
    state = engine.zero_state(1)
    engine.step(tokens[0, :1], state)
    kept = state.read()
    state.resize(5)
    assert_same({name: value[:1] for name, value in state.read().items()}, kept)
    assert not any(value[1:].any() for value in state.read().values())
    state.copy_row(3, state, 0)
    assert_same({name: value[3:4] for name, value in state.read().items()}, kept)
    state.resize(2)
    state.resize(4)
    assert not any(value[3:].any() for value in state.read().values())


def test_refuses_tokens_and_values_that_do_not_exist(engines: Engines) -> None:
    _, engine = engines("small")
    state = engine.zero_state()
    for token in (-1, engine.vocab_size):
        with pytest.raises(EngineError, match="tokens must lie between"):
            engine.step(np.asarray([token]), state)
    good = state.read()
    for name, bad in (("memory_tokens", engine.vocab_size), ("position", -1)):
        values = {**good, "reservoir": good["reservoir"] + 1, name: np.full_like(good[name], bad)}
        with pytest.raises(EngineError, match=name):
            state.write(values)
        assert_same(state.read(), good)  # none of it was written


def test_refuses_a_state_of_another_model(engines: Engines) -> None:
    (_, first), (_, second) = engines("small"), engines("single CNN")
    with pytest.raises(EngineError, match="belongs to another engine"):
        first.zero_state().copy_row(0, second.zero_state(), 0)


def test_a_step_that_is_not_finite_leaves_the_stream_alone(engines: Engines) -> None:
    _, engine = engines("small")
    state = engine.zero_state(2)
    first = engine.step(np.asarray([1, 2]), state)
    copy, good = first.copy(), state.read()
    broken = {name: value.copy() for name, value in good.items()}
    broken["wave_buffer"][1] = np.nan
    state.write(broken)
    for read in (
        lambda: engine.step(np.asarray([3, 4]), state),
        lambda: engine.prefill(np.full((2, 40), 3), state),
    ):
        with pytest.raises(EngineError, match="row 1 of the batch"):
            read()
        np.testing.assert_array_equal(state.read()["reservoir"], good["reservoir"])
        np.testing.assert_array_equal(first, copy)
    state.write(good)
    assert np.isfinite(engine.step(np.asarray([3, 4]), state)).all()


def small_tensors(values: Values) -> Values:
    return {name: value for name, value in values.items() if not name.startswith("memory_")}


def assert_same(actual: Values, expected: Values) -> None:
    assert list(actual) == list(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value, err_msg=name)


# With bundles, beside ONNX Runtime.


def test_the_record_is_repeated(small_bundle: Path) -> None:
    model = load(small_bundle, "native")
    for report in verify_golden(model).values():
        assert max(report.logits, *report.state.values()) <= TOLERANCE


@pytest.mark.parametrize("there", [False, True])
def test_streams_move_between_engines(small_bundle: Path, there: bool, tmp_path: Path) -> None:
    """The same text, whichever engine wrote the first half."""
    names = ("native", "cpu") if there else ("cpu", "native")
    first, second = (load(small_bundle, name) for name in names)
    options = {"temperature": 0.8, "seed": 5}
    session = first.session()
    session.feed("The value of an expression is ")
    head = session.generate(max_new_tokens=60, **options)
    session.save(tmp_path / "saved.state")
    moved = second.restore(tmp_path / "saved.state")
    rest = [each.generate(max_new_tokens=100, **options) for each in (session, moved)]
    assert rest[0] == rest[1]
    assert head


@pytest.mark.parametrize("has_onnx_runtime", [True, False])
def test_auto_chooses_native(
    small_bundle: Path, monkeypatch: pytest.MonkeyPatch, has_onnx_runtime: bool
) -> None:
    if not has_onnx_runtime:
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
    model = load(small_bundle)
    assert model.engine.provider == "native"
    assert isinstance(model.engine.zero_state(), NativeState)
    assert model.generate("The ", max_new_tokens=20, seed=1)


def test_greedy_tokens_are_those_of_onnx_runtime(small_bundle: Path) -> None:
    ours, theirs = load(small_bundle, "native"), load(small_bundle, "cpu")
    texts = [model.generate("The ", max_new_tokens=400, temperature=0) for model in (ours, theirs)]
    assert texts[0] == texts[1]


def test_tokens_of_the_generating_graph_are_the_same(small_bundle: Path) -> None:
    model = load(small_bundle, "native")
    texts = []
    for in_graph in (False, True):
        session = model.session()
        session.feed("The value ")
        texts.append(session.generate(max_new_tokens=80, seed=2, in_graph=in_graph))
    assert texts[0] == texts[1]

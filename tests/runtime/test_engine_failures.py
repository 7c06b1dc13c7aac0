"""Engines that fail in the middle of a stream: nothing is lost, and another can continue.

The failures are real: a graph that ONNX Runtime refuses to compute from some position on, a graph
that computes NaN from there on, memory that the system does not grant.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from rillet.runtime import Bundle, EngineError, Model, load
from rillet.runtime.engines.device_state import DeviceState
from rillet.runtime.engines.fallback import FallbackEngine
from rillet.runtime.engines.ort.device_engine import OnnxDeviceEngine
from rillet.runtime.engines.ort.host_engine import OnnxEngine
from support.bundle_mutations import sign

LAST = 120
"""The position at which a step fails, after the memory of the small model has filled up."""
PROMPT = "The value of an expression is "
OPTIONS = {"max_new_tokens": 200, "temperature": 0.9, "seed": 3}


def break_graph(bundle: Path, out: Path, how: str) -> Path:
    """Copy a bundle, with a decoding graph that fails from a position on."""
    shutil.copytree(bundle, out)
    graph = onnx.load(out / "decode.onnx")
    nodes, values = graph.graph.node, graph.graph.initializer
    if how == "raises":
        # The last node looks up the position in a table that ends there.
        for node in nodes:
            node.output[:] = ["whole" if name == "logits" else name for name in node.output]
            node.input[:] = ["whole" if name == "logits" else name for name in node.input]
        values.append(numpy_helper.from_array(np.zeros(LAST, np.float32), "table"))
        nodes.append(helper.make_node("Gather", ["table", "past.position"], ["entry"]))
        nodes.append(helper.make_node("Reshape", ["entry", "each"], ["added"]))
        values.append(numpy_helper.from_array(np.asarray([-1, 1, 1]), "each"))
        nodes.append(helper.make_node("Add", ["whole", "added"], ["logits"]))
    else:
        # The reservoir's state is NaN from there on, and so is everything computed from it.
        for node in nodes:
            node.input[:] = [
                "poisoned" if name == "past.reservoir" else name for name in node.input
            ]
        table = np.zeros(100_000, np.float32)
        table[LAST:] = np.nan
        values.append(numpy_helper.from_array(table, "table"))
        values.append(numpy_helper.from_array(np.asarray([-1, 1]), "each"))
        nodes.insert(0, helper.make_node("Add", ["past.reservoir", "added"], ["poisoned"]))
        nodes.insert(0, helper.make_node("Reshape", ["entry", "each"], ["added"]))
        nodes.insert(0, helper.make_node("Gather", ["table", "past.position"], ["entry"]))
    (out / "decode.onnx").write_bytes(graph.SerializeToString())
    sign(out)
    return out


@pytest.fixture(scope="module")
def small_model(small_bundle: Path) -> Model:
    """The small bundle on ONNX Runtime, whose graphs are broken here."""
    return load(small_bundle, "cpu")


@pytest.fixture(scope="module", params=["raises", "computes NaN"])
def failing(
    request: pytest.FixtureRequest, small_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return break_graph(small_bundle, tmp_path_factory.mktemp("failing") / "bundle", request.param)


@pytest.fixture(scope="module")
def expected_text(small_model: Model) -> str:
    """The text of an undisturbed stream."""
    return small_model.generate(PROMPT, **OPTIONS)


def test_the_session_is_unchanged(failing: Path, small_model: Model, expected_text: str) -> None:
    """State, prediction, position and random numbers: a good engine continues the same text."""
    model = load(failing, "cpu")
    session, good = model.session(), small_model.session()
    for each in (session, good):
        each.feed(PROMPT)
    text: list[str] = []
    stream = session.stream(**OPTIONS, on_text=text.append)
    with pytest.raises(EngineError, match="the stream is where it was"):
        list(stream)
    assert session.position == LAST
    assert "".join(text) == expected_text[: LAST - len(PROMPT)]
    good.generate(**{**OPTIONS, "max_new_tokens": LAST - len(PROMPT)})
    state, expected = session.state, good.state
    slot = LAST % state["memory_keys"].shape[1]
    for name, value in state.items():
        theirs = expected[name]
        if name.startswith("memory"):  # the slot that the next step writes before it reads
            value, theirs = (np.delete(of, slot, axis=1) for of in (value, theirs))
        assert np.isfinite(value).all()
        np.testing.assert_array_equal(value, theirs, err_msg=name)
    logits, their_logits = session.logits, good.logits
    assert logits is not None
    assert their_logits is not None
    np.testing.assert_array_equal(logits, their_logits)
    with pytest.raises(EngineError):  # and again at each attempt
        next(stream)
    assert session.position == LAST


def test_a_stream_saved_after_a_failure_continues_elsewhere(
    failing: Path, small_model: Model, expected_text: str, tmp_path: Path
) -> None:
    session = load(failing, "cpu").session()
    session.feed(PROMPT)
    text: list[str] = []
    with pytest.raises(EngineError):
        session.generate(**OPTIONS, on_text=text.append)
    session.save(tmp_path / "saved.state")
    rest = "".join(small_model.restore(tmp_path / "saved.state").resume())
    assert "".join(text) + rest == expected_text


def test_rollback_after_a_failure(failing: Path) -> None:
    model = load(failing, "cpu")
    session = model.session()
    session.feed(PROMPT)
    mark = session.checkpoint()
    text = session.generate(max_new_tokens=50, seed=1)
    with pytest.raises(EngineError):
        session.generate(max_new_tokens=200, seed=1)
    session.rollback(mark)
    assert session.generate(max_new_tokens=50, seed=1) == text


def test_a_batch_is_unchanged(failing: Path, small_model: Model) -> None:
    texts: dict[str, list[str]] = {}
    for name, model in (("failing", load(failing, "cpu")), ("good", small_model)):
        with model.batch() as batch:
            sessions = [model.session() for _ in range(3)]
            pieces: list[list[str]] = [[] for _ in sessions]
            for seed, session in enumerate(sessions):
                session.feed("It " * (seed + 1))
                batch.join(session, max_new_tokens=150, temperature=0.9, seed=seed)
            try:
                while len(batch):
                    for session, token in batch.write().items():
                        pieces[sessions.index(session)].append(token.text)
            except EngineError:
                assert name == "failing"
                assert max(session.position for session in sessions) == LAST
                # The longest one leaves; the others continue.
                batch.leave(sessions[2])
                for session, token in batch.write().items():
                    pieces[sessions.index(session)].append(token.text)
        texts[name] = ["".join(each) for each in pieces]
    for text, whole in zip(texts["failing"], texts["good"], strict=True):
        assert len(text) > 80
        assert whole.startswith(text)


def lose(state: object) -> None:
    """Take a device's memory away: prepared steps still run, but the state cannot be read."""
    assert isinstance(state, DeviceState)
    for side in state.lane.sides:
        side["reservoir"] = None


@pytest.mark.parametrize("lost", [False, True], ids=["can be read", "is lost with its memory"])
def test_the_next_engine_continues(
    failing: Path,
    small_bundle: Path,
    expected_text: str,
    lost: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = OnnxDeviceEngine(Bundle.open(failing), "cpu")
    engine = FallbackEngine(first, [("cpu", lambda: OnnxEngine(Bundle.open(small_bundle), "cpu"))])
    model = Model(Bundle.open(small_bundle), engine)
    session = model.session()
    session.feed(PROMPT)
    stream = session.stream(**OPTIONS)
    text = [next(stream) for _ in range(50)]
    if lost:
        lose(session._stream.state.inner)
    with pytest.warns(RuntimeWarning, match=r"onnxruntime .* failed: .*; the stream continues on"):
        text += list(stream)
    assert "".join(text) == expected_text
    assert any(record.levelname == "ERROR" for record in caplog.records)
    # New streams begin on the engine that works, without another warning.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.generate(PROMPT, **OPTIONS) == expected_text


def test_an_engine_that_cannot_be_opened_is_passed_over(
    failing: Path, small_bundle: Path, expected_text: str
) -> None:
    def refuse() -> OnnxEngine:
        raise EngineError("no such library")

    first = OnnxDeviceEngine(Bundle.open(failing), "cpu")
    last = OnnxEngine(Bundle.open(small_bundle), "cpu")
    engine = FallbackEngine(first, [("cuda", refuse), ("cpu", lambda: last)])
    with pytest.warns(RuntimeWarning, match="the stream continues on 'cpu'"):
        text = Model(Bundle.open(small_bundle), engine).generate(PROMPT, **OPTIONS)
    assert text == expected_text


def test_a_long_stream_moves_with_its_copy(failing: Path, small_bundle: Path) -> None:
    """The copy in the host's memory is renewed; forks and batches keep copies of their own."""
    bundle = Bundle.open(small_bundle)
    first = OnnxDeviceEngine(Bundle.open(failing), "cpu")
    engine = FallbackEngine(first, [("cpu", lambda: OnnxEngine(bundle, "cpu"))])
    plain = OnnxEngine(bundle, "cpu")
    tokens = np.random.default_rng(2).integers(0, engine.vocab_size, (2, 700))
    state, expected = engine.zero_state(2), plain.zero_state(2)
    learn = np.asarray([1.0, 0.0], np.float32)
    for each, own in ((engine, state), (plain, expected)):
        each.step(tokens[:, 0], own)
        each.prefill(tokens[:, :600], own, learn)  # the prefill graph does not fail
        each.prefill(tokens[:, 600:650], own)
    twin = engine.zero_state(1)
    twin.copy_row(0, state, 1)
    lose(state.inner)
    with pytest.warns(RuntimeWarning, match="continues on"):
        actual = engine.step(tokens[:, 650], state)
    logits = plain.step(tokens[:, 650], expected)
    np.testing.assert_allclose(actual, logits, atol=1e-4)
    for name, value in state.read().items():
        np.testing.assert_allclose(value, expected.read()[name], atol=1e-4, err_msg=name)
    np.testing.assert_allclose(engine.step(tokens[1:, 650], twin)[0], logits[1], atol=1e-4)


def test_without_another_engine_the_error_stands(failing: Path) -> None:
    engine = FallbackEngine(OnnxEngine(Bundle.open(failing), "cpu"), [])
    model = Model(Bundle.open(failing), engine)
    with pytest.raises(EngineError, match="the stream is where it was"):
        model.generate(PROMPT, **OPTIONS)


def test_a_state_of_another_engine_is_refused(small_bundle: Path) -> None:
    bundle = Bundle.open(small_bundle)
    host, token = OnnxEngine(bundle, "cpu"), np.asarray([1])
    devices = [OnnxDeviceEngine(bundle, "cpu") for _ in range(2)]
    fallback = FallbackEngine(host, [])
    engines = [host, *devices, fallback]
    for engine in engines:
        for other in engines:
            state, foreign = engine.zero_state(), other.zero_state()
            if engine is other:
                engine.step(token, foreign)
                continue
            for refused in (
                lambda engine=engine, foreign=foreign: engine.step(token, foreign),
                lambda engine=engine, foreign=foreign: engine.prefill(token[None], foreign),
                lambda state=state, foreign=foreign: state.copy_row(0, foreign, 0),
            ):
                with pytest.raises(EngineError, match="belongs to another engine"):
                    refused()


def test_unknown_tokens_do_not_switch_engines(small_bundle: Path) -> None:
    bundle = Bundle.open(small_bundle)
    plain = OnnxEngine(bundle, "cpu")
    engine = FallbackEngine(plain, [("cpu", lambda: OnnxEngine(bundle, "cpu"))])
    with pytest.raises(EngineError, match="tokens must lie between"):
        engine.step(np.asarray([engine.vocab_size]), engine.zero_state())
    for wrong in (-1, plain.vocab_size):
        with pytest.raises(EngineError, match="tokens must lie between"):
            plain.prefill(np.asarray([[0, wrong]]), plain.zero_state())
    assert len(engine._engines) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS is what Linux keeps to")
def test_memory_that_the_system_does_not_grant(small_bundle: Path) -> None:
    """A chunk too long for the memory is a named error, and the stream continues as before."""
    code = """
import resource, sys
import numpy as np
from rillet.runtime import EngineError, load
model = load(sys.argv[1], "cpu")
session = model.session()
session.feed("The value of ")
twin = session.fork()
rows = model.engine.zero_state(4)
model.engine.prefill(np.zeros((4, 128), np.int64), rows, last=True)
now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + (4 << 20), resource.RLIM_INFINITY))
big = np.zeros((2_000, 128), np.int64)
try:
    state = model.engine.zero_state(2_000)
    model.engine.prefill(big, state, last=True)
except (EngineError, MemoryError) as error:
    print(type(error).__name__, str(error)[:60])
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
assert session.generate(max_new_tokens=30, seed=1) == twin.generate(max_new_tokens=30, seed=1)
print("continues")
"""
    result = subprocess.run(
        [sys.executable, "-c", code, str(small_bundle)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    first, last = result.stdout.splitlines()
    assert first.startswith(("EngineError", "MemoryError"))
    assert last == "continues"

"""TensorRT's engine on a device that runs nothing until it must, with memory full of NaN.

See :mod:`support.lazy_cuda`. What TensorRT computes is left to ONNX Runtime; everything around it
is ours: buffers, streams, sides, lanes, captured graphs, and what becomes of them.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rillet.runtime import Bundle, EngineError, Model, load
from rillet.runtime.engines.base import Engine
from rillet.runtime.engines.cuda.driver import copy_on_device, driver_obstacle, zero_on_device
from rillet.runtime.engines.ort.host_engine import OnnxEngine
from rillet.runtime.engines.tensorrt.engine import TensorrtEngine
from support.lazy_cuda import LazyCuda, build_stub_driver, install, save_engines


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_stub_driver(tmp_path_factory.mktemp("driver"))


@pytest.fixture
def cuda(driver: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LazyCuda]:
    lazy = install(driver, monkeypatch)
    yield lazy
    assert lazy.faults == []


@pytest.fixture
def bundle(cuda: LazyCuda, small_bundle: Path, tmp_path: Path) -> Bundle:
    shutil.copytree(small_bundle, tmp_path / "model")
    bundle = Bundle.open(tmp_path / "model")
    save_engines(bundle, (1, 2, 8))
    return bundle


@pytest.fixture
def host(bundle: Bundle) -> OnnxEngine:
    return OnnxEngine(bundle, "cpu")


def tokens_of(engine: Engine, rows: int, length: int, seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, engine.vocab_size, (rows, length))


@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize("rows", [1, 3])
def test_steps_and_chunks(
    cuda: LazyCuda, bundle: Bundle, host: OnnxEngine, rows: int, graphs: bool
) -> None:
    """Chunks longer than a call of the prefill graph, steps around them, some not learnt."""
    device = TensorrtEngine(bundle, "tensorrt", graphs=graphs, unverified=True)
    tokens = tokens_of(host, rows, 320)
    ours, theirs = device.zero_state(rows), host.zero_state(rows)
    for at in range(20):
        learn = np.asarray([at % 3 != row for row in range(rows)], np.float32)
        actual = device.step(tokens[:, at], ours, learn)
        np.testing.assert_allclose(actual, host.step(tokens[:, at], theirs, learn), atol=1e-5)
    actual = device.prefill(tokens[:, 20:], ours, 0.5)
    np.testing.assert_allclose(actual, host.prefill(tokens[:, 20:], theirs, 0.5), atol=1e-4)
    for name, value in theirs.read().items():
        np.testing.assert_allclose(ours.read()[name], value, atol=1e-4, err_msg=name)
    assert (cuda.launches >= 20) == graphs


def test_batches_that_change_are_captured_anew(
    cuda: LazyCuda, bundle: Bundle, host: OnnxEngine
) -> None:
    """Each size has graphs of its own buffers; a size that comes back replays the old ones."""
    device = TensorrtEngine(bundle, "tensorrt")
    tokens = tokens_of(host, 6, 60)
    ours, theirs = device.zero_state(0), host.zero_state(0)
    at = 0
    for rows in (1, 2, 5, 3, 1, 6, 2):
        ours.resize(rows)
        theirs.resize(rows)
        for _ in range(4):
            actual = device.step(tokens[:rows, at], ours)
            np.testing.assert_allclose(actual, host.step(tokens[:rows, at], theirs), atol=1e-5)
            at += 1
    assert cuda.captures == 3 * 3  # three sides of three sizes


def test_forks_take_turns(bundle: Bundle, host: OnnxEngine) -> None:
    """A fork goes on when what it was forked from is gone, and its buffers are another's."""
    device = TensorrtEngine(bundle, "tensorrt")
    tokens = tokens_of(host, 2, 40)
    first, theirs = device.zero_state(), host.zero_state()
    for token in tokens[0, :10]:
        device.step(np.asarray([token]), first)
        host.step(np.asarray([token]), theirs)
    twin = first.copy()
    for token in tokens[1]:
        device.step(np.asarray([token]), first)  # on another stream of the device
    del first
    gc.collect()
    other = device.zero_state()  # in the first one's lane
    for token in tokens[0, 10:]:
        device.step(tokens[1, :1], other)
        actual = device.step(np.asarray([token]), twin)
        np.testing.assert_allclose(actual, host.step(np.asarray([token]), theirs), atol=1e-5)


def test_two_models_on_one_device(
    bundle: Bundle, small_bundle: Path, tmp_path: Path, host: OnnxEngine
) -> None:
    shutil.copytree(small_bundle, tmp_path / "other")
    other = Bundle.open(tmp_path / "other")
    save_engines(other, (4,))
    engines = [TensorrtEngine(bundle, "tensorrt"), TensorrtEngine(other, "tensorrt")]
    states, theirs = [engine.zero_state() for engine in engines], host.zero_state()
    for token in tokens_of(host, 1, 20).T:
        expected = host.step(token, theirs)
        for engine, state in zip(engines, states, strict=True):
            np.testing.assert_allclose(engine.step(token, state), expected, atol=1e-5)
    with pytest.raises(EngineError, match="belongs to another engine"):
        engines[0].step(np.zeros(1, np.int64), states[1])


def test_closing_frees_the_device(cuda: LazyCuda, bundle: Bundle, host: OnnxEngine) -> None:
    """Nothing waits for Python's garbage collector, which knows nothing of a GPU's memory."""
    gc.collect()
    gc.disable()
    try:
        model = Model(bundle, TensorrtEngine(bundle, "tensorrt"))
        kept = model.session()
        kept.feed("The ")
        model.generate("The ", max_new_tokens=5)
        model.close()
        assert not cuda.graphs
        held = len(cuda.streams)
        assert held == 1  # the session that is still used
        kept.feed("statement ")
        assert cuda.graphs
        model.close()
        del kept
        model.close()
        del model
        assert not cuda.memory
        assert not cuda.streams
    finally:
        gc.enable()


def test_a_lost_device(cuda: LazyCuda, bundle: Bundle) -> None:
    """The error is one sentence of ours, and with a fallback the text goes on."""
    sampling = {"max_new_tokens": 30, "temperature": 0.0}
    expected = load(bundle.path, "cpu").generate("The ", **sampling)
    model = load(bundle.path, "tensorrt")
    session = model.session()
    session.feed("The ")
    careful = load(bundle.path, "tensorrt", allow_fallback=True)
    stream = careful.session()
    stream.feed("The ")
    begun = stream.generate(max_new_tokens=10, temperature=0.0)
    cuda.lose()
    with pytest.raises(EngineError, match="cudaErrorLaunchFailure"):
        session.generate(**sampling)
    with pytest.warns(RuntimeWarning, match="the stream continues on"):
        assert begun + stream.generate(max_new_tokens=20, temperature=0.0) == expected
    with pytest.raises(EngineError):
        model.session()
    model.close()
    careful.close()


def test_a_graph_that_cannot_be_captured(
    cuda: LazyCuda, bundle: Bundle, host: OnnxEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """Steps run without it, and what was recorded so far is freed."""
    device = TensorrtEngine(bundle, "tensorrt")
    cuda.refuse_capture = True
    ours, theirs = device.zero_state(), host.zero_state()
    for token in tokens_of(host, 1, 8).T:
        expected = host.step(token, theirs)
        np.testing.assert_allclose(device.step(token, ours), expected, atol=1e-5)
    assert "steps are not captured as CUDA graphs" in caplog.text
    assert not cuda.graphs
    assert not cuda.launches


def test_a_forked_process_is_told(bundle: Bundle) -> None:
    """It can neither use the model nor load another, and leaves the parent's device alone."""
    model = load(bundle.path, "tensorrt")
    session = model.session()
    session.feed("The ")

    def child(pipe: object) -> None:
        messages = []
        for use in (
            lambda: session.generate(max_new_tokens=3),
            lambda: session.state,
            model.session,
            lambda: load(bundle.path, "tensorrt"),
        ):
            try:
                use()
                messages.append("it worked")
            except EngineError as error:
                messages.append(str(error))
        pipe.send(messages)  # type: ignore[attr-defined]

    ours, theirs = multiprocessing.Pipe()
    if os.fork() == 0:
        try:
            child(theirs)
        finally:
            os._exit(0)
    messages = ours.recv()
    os.wait()
    assert [("fork" in message) for message in messages] == [True] * 4, messages
    assert session.generate(max_new_tokens=3, seed=1)


def test_the_driver_is_left_as_it_was(driver: Path, cuda: LazyCuda) -> None:
    """Copies wait for their own stream, in a context that is current only meanwhile."""
    source, target = np.arange(8.0), np.full(8, np.nan)
    copy_on_device(target.ctypes.data, source.ctypes.data, source.nbytes)
    np.testing.assert_array_equal(target, source)
    zero_on_device(target.ctypes.data, target.nbytes)
    assert not target.any()
    assert ctypes.CDLL(str(driver)).left_behind() == 0
    assert driver_obstacle() is None


LEAVE = """
import sys
from pathlib import Path
import pytest
from support.lazy_cuda import install
cuda = install(Path(sys.argv[1]), pytest.MonkeyPatch())
from rillet.runtime import load
model = load(sys.argv[2], "tensorrt")
session = model.session()
session.feed("The ")
if sys.argv[3] == "close":
    model.close()
cuda.lose()
"""


@pytest.mark.parametrize("how", ["close", "leave"])
def test_the_interpreter_exits_in_silence(bundle: Bundle, driver: Path, how: str) -> None:
    """With streams and graphs alive, on a device that answers no more."""
    tests = Path(__file__).parents[1]
    result = subprocess.run(
        [sys.executable, "-c", LEAVE, str(driver), str(bundle.path), how],
        env={**os.environ, "PYTHONPATH": str(tests)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")

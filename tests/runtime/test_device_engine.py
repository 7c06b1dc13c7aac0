"""The engine whose state stays on a device, with the processor's memory as the device.

A GPU gets the same calls of the real ONNX Runtime; tests that need one are marked.
"""

from __future__ import annotations

import gc
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from rillet.runtime import Bundle, EngineError, Model, load
from rillet.runtime.engines.cuda import driver as cuda_driver
from rillet.runtime.engines.device_state import power_of_two
from rillet.runtime.engines.ort.device_engine import OnnxDeviceEngine
from rillet.runtime.engines.ort.host_engine import OnnxEngine
from rillet.runtime.golden import verify_golden

on_a_gpu = pytest.param("cuda", marks=pytest.mark.gpu)


@pytest.fixture(params=["cpu", on_a_gpu])
def device(request: pytest.FixtureRequest, small_bundle: Path) -> OnnxDeviceEngine:
    engine = OnnxDeviceEngine(Bundle.open(small_bundle), request.param)
    if request.param == "cuda":
        need_cuda(engine)
    return engine


@pytest.fixture
def host(small_bundle: Path) -> OnnxEngine:
    return OnnxEngine(Bundle.open(small_bundle), "cpu")


def need_cuda(engine: OnnxDeviceEngine) -> None:
    obstacle = cuda_driver.driver_obstacle()
    if obstacle is not None:
        pytest.skip(obstacle)
    try:
        engine.zero_state()
    except EngineError as error:
        pytest.skip(f"the CUDA provider cannot run here: {error}")


def tokens_of(engine: OnnxEngine, rows: int, length: int) -> np.ndarray:
    return np.random.default_rng(5).integers(0, engine.vocab_size, (rows, length))


def agree(device: OnnxDeviceEngine, actual: np.ndarray, expected: np.ndarray) -> None:
    """Equal bit for bit on the processor, where kernels are the same; on a GPU, within 1e-4."""
    if device.provider == "CPUExecutionProvider":
        np.testing.assert_array_equal(actual, expected)
    else:
        np.testing.assert_allclose(actual, expected, atol=1e-4)


@pytest.mark.parametrize("rows", [1, 3])
def test_steps_and_chunks_match_the_host_engine(
    device: OnnxDeviceEngine, host: OnnxEngine, rows: int
) -> None:
    """Chunks longer than a call of the prefill graph, steps around them, some not learnt."""
    tokens = tokens_of(host, rows, 320)
    ours, theirs = device.zero_state(rows), host.zero_state(rows)
    for at in range(20):
        learn = np.asarray([at % 3 != row for row in range(rows)], np.float32)
        actual = device.step(tokens[:, at], ours, learn)
        np.testing.assert_allclose(actual, host.step(tokens[:, at], theirs, learn), atol=1e-4)
    actual = device.prefill(tokens[:, 20:300], ours, 0.5)
    np.testing.assert_allclose(actual, host.prefill(tokens[:, 20:300], theirs, 0.5), atol=1e-4)
    last = device.prefill(tokens[:, 300:], ours, last=True)
    assert last.shape == (rows, 1, host.vocab_size)
    np.testing.assert_allclose(last, host.prefill(tokens[:, 300:], theirs, last=True), atol=1e-4)
    for name, value in theirs.read().items():
        np.testing.assert_allclose(ours.read()[name], value, atol=1e-4, err_msg=name)


def test_one_row_equals_the_host_engine_bit_for_bit(
    device: OnnxDeviceEngine, host: OnnxEngine
) -> None:
    ours, theirs = device.zero_state(), host.zero_state()
    for column in tokens_of(host, 1, 60).T:
        agree(device, device.step(column, ours), host.step(column, theirs))
    for name, value in theirs.read().items():
        agree(device, ours.read()[name], value)


def test_warm_up_changes_no_stream(device: OnnxDeviceEngine, host: OnnxEngine) -> None:
    """Capturing runs a step more than once; a state that existed before is unchanged."""
    tokens = tokens_of(host, 1, 40)
    theirs, ours = host.zero_state(), device.zero_state()
    host.prefill(tokens, theirs)
    ours.write(theirs.read())
    lane, session = ours.lane, device._session("decode")
    assert lane.calls is None
    before = lane.save()
    device._prepare(session, lane)
    for side, kept in zip(lane.sides, before, strict=True):
        for name, value in kept.items():
            np.testing.assert_array_equal(side[name].read(), value, err_msg=name)
    agree(device, device.step(tokens[:, 0], ours), host.step(tokens[:, 0], theirs))


def test_inputs_are_replaced_in_place(device: OnnxDeviceEngine) -> None:
    """A captured graph always reads the same addresses."""
    state = device.zero_state()
    addresses = [buffer.value.data_ptr() for buffer in (state.lane.ids, state.lane.learn)]
    first = device.step(np.asarray([1]), state, 1.0)
    second = device.step(np.asarray([2]), state, 0.0)
    assert not np.array_equal(first, second)
    assert state.lane.ids.read().tolist() == [[2]]
    assert state.lane.learn.read().tolist() == [0.0]
    now = [buffer.value.data_ptr() for buffer in (state.lane.ids, state.lane.learn)]
    assert now == addresses


def test_rows_come_and_go(device: OnnxDeviceEngine, host: OnnxEngine) -> None:
    tokens = tokens_of(host, 6, 30)
    ours, theirs = device.zero_state(0), host.zero_state(0)
    for rows in (1, 2, 5, 3, 4, 1, 6):
        ours.resize(rows)
        theirs.resize(rows)
        assert ours.lane.capacity == power_of_two(ours.lane.capacity) >= rows
        for at in range(4):
            actual = device.step(tokens[:rows, at + rows], ours)
            expected = host.step(tokens[:rows, at + rows], theirs)
            np.testing.assert_allclose(actual, expected, atol=1e-4)
    ours.copy_row(0, ours, 4)
    theirs.copy_row(0, theirs, 4)
    for name, value in theirs.read().items():
        np.testing.assert_allclose(ours.read()[name], value, atol=1e-4, err_msg=name)


def test_lanes_are_reused_and_start_at_zeros(device: OnnxDeviceEngine) -> None:
    state = device.zero_state()
    device.step(np.asarray([3]), state)
    lane, calls = state.lane, state.lane.calls
    del state
    gc.collect()
    again = device.zero_state()
    assert again.lane is lane
    assert again.lane.calls is calls
    assert all(not value.any() for value in again.read().values())
    held = [device.zero_state() for _ in range(3)]
    assert len({id(entry.lane) for entry in [again, *held]}) == 4


def test_an_unknown_token_leaves_the_stream_unchanged(device: OnnxDeviceEngine) -> None:
    state = device.zero_state()
    device.step(np.asarray([1]), state)
    before = state.read()
    for wrong in (-1, device.vocab_size):
        with pytest.raises(EngineError, match="the stream is where it was"):
            device.step(np.asarray([wrong]), state)
        with pytest.raises(EngineError, match="the stream is where it was"):
            device.prefill(np.asarray([[1, wrong]]), state)
    for name, value in before.items():
        np.testing.assert_array_equal(state.read()[name], value)
    with pytest.raises(EngineError, match="state tensor"):
        state.write({**before, "position": np.zeros(2, np.int64)})


def test_a_prompt_that_fails_half_way_is_not_read(
    small_bundle: Path, tmp_path: Path, host: OnnxEngine
) -> None:
    """A prefill graph of fixed length fails at the second chunk, which is shorter."""
    device = OnnxDeviceEngine(Bundle.open(small_bundle), "cpu")
    graph = onnx.load(str(small_bundle / "prefill.onnx"))
    for node in graph.graph.node:
        for index, name in enumerate(node.input):
            if name == "input_ids":
                node.input[index] = "input_ids/fixed"
    sizes = helper.make_tensor("fixed", onnx.TensorProto.INT64, [2], [1, 256])
    graph.graph.initializer.append(sizes)
    reshape = helper.make_node("Reshape", ["input_ids", "fixed"], ["input_ids/fixed"])
    graph.graph.node.insert(0, reshape)
    broken = tmp_path / "prefill.onnx"
    onnx.save(graph, str(broken))
    device._sessions["prefill"] = device._create(broken, "cpu")
    state = device.zero_state()
    device.step(np.asarray([1]), state)
    before = state.read()
    with pytest.raises(EngineError, match="onnxruntime failed in a step"):
        device.prefill(tokens_of(host, 1, 300), state)
    for name, value in before.items():
        np.testing.assert_array_equal(state.read()[name], value, err_msg=name)


def test_sessions_batches_and_saved_state(
    device: OnnxDeviceEngine, small_model: Model, small_bundle: Path, tmp_path: Path
) -> None:
    """Everything above the engine works the same."""
    model = Model(Bundle.open(small_bundle), device)
    verify_golden(model)
    sampling = {"max_new_tokens": 40, "temperature": 0.7, "seed": 3}
    assert model.generate("The ", **sampling) == small_model.generate("The ", **sampling)
    session = model.session()
    session.feed("The statement ")
    session.save(tmp_path / "state")
    twin = session.fork()
    assert twin.generate(**sampling) == session.generate(**sampling)
    restored = small_model.restore(tmp_path / "state")
    assert restored.generate(**sampling) == model.restore(tmp_path / "state").generate(**sampling)
    with model.batch() as batch, small_model.batch() as other:
        prompts = ["The ", "A ", "In this "]
        assert batch.generate(prompts, **sampling) == other.generate(prompts, **sampling)
    model.close()
    assert model.generate("The ", **sampling) == small_model.generate("The ", **sampling)
    with pytest.raises(ValueError, match="needs ONNX Runtime on the processor"):
        model.session().generate(in_graph=True, max_new_tokens=4)


def test_rows_that_join_a_used_lane_start_at_zeros(device: OnnxDeviceEngine) -> None:
    """Unused rows too: where a row depends on its batch, one that is not finite spoils all."""
    used = device.zero_state(4)
    for side in used.lane.sides:
        for buffer in side.values():
            values = buffer.read()
            buffer.write(np.full_like(values, np.nan if values.dtype == np.float32 else 1))
    lane = used.lane
    del used
    gc.collect()
    state = device.zero_state(1)
    device.step(np.asarray([3]), state)  # on a side that a fresh lane does not begin with
    state.resize(3)
    assert state.lane is lane
    for buffer in lane.sides[state.side].values():
        assert not buffer.read()[1:].any()


def test_a_lost_device_is_an_error_of_ours(
    small_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime raises its own exceptions from copies, and those come first in a step."""
    device = OnnxDeviceEngine(Bundle.open(small_bundle), "cpu")
    state = device.zero_state()
    device.step(np.asarray([1]), state)

    class Lost:
        def update_inplace(self, values: np.ndarray) -> None:
            raise RuntimeError("CUDA failure 719: unspecified launch failure")

        def numpy(self) -> np.ndarray:
            raise RuntimeError("CUDA failure 719: unspecified launch failure")

    monkeypatch.setattr(state.lane.ids, "value", Lost())
    with pytest.raises(EngineError, match=r"CUDA failure 719.* the stream is where it was"):
        device.step(np.asarray([2]), state)
    for buffer in state.lane.sides[state.side].values():
        monkeypatch.setattr(buffer, "value", Lost())
    with pytest.raises(EngineError, match="CUDA failure 719"):
        state.read()


def test_closing_drops_what_was_prepared(device: OnnxDeviceEngine, host: OnnxEngine) -> None:
    """A stream that is kept does not keep the graphs; the next step prepares them again."""
    ours, theirs = device.zero_state(), host.zero_state()
    for token in (1, 2):
        device.step(np.asarray([token]), ours)
        host.step(np.asarray([token]), theirs)
    device.close()
    assert ours.lane.calls is None
    agree(device, device.step(np.asarray([3]), ours), host.step(np.asarray([3]), theirs))


def test_a_lane_comes_back_while_one_is_taken(device: OnnxDeviceEngine) -> None:
    """The garbage collector may strike inside the pool, in the thread that holds its lock."""
    pool, spare = device.zero_state().pool, device.zero_state(4)

    class Struck(dict):  # type: ignore[type-arg]
        def get(self, *arguments: object) -> object:
            pool.give_back(spare.lane)
            return super().get(*arguments)

    pool._free = Struck(pool._free)
    thread = threading.Thread(target=pool.take, args=[2], daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()


@pytest.mark.gpu
def test_steps_are_captured_as_cuda_graphs(small_bundle: Path, host: OnnxEngine) -> None:
    """Logits are the same with and without graphs, on two streams with buffers of their own."""
    bundle = Bundle.open(small_bundle)
    need_cuda(OnnxDeviceEngine(bundle, "cuda"))
    captured = OnnxDeviceEngine(bundle, "cuda", graphs=True)
    plain = OnnxDeviceEngine(bundle, "cuda", graphs=False)
    tokens = tokens_of(host, 2, 50)
    for row in tokens:
        ours, theirs = captured.zero_state(), plain.zero_state()
        for token in row:
            actual = captured.step(np.asarray([token]), ours)
            np.testing.assert_allclose(actual, plain.step(np.asarray([token]), theirs), atol=1e-5)
    assert "CUDA graphs" in captured.version
    assert captured.provider == "CUDAExecutionProvider"


@pytest.mark.gpu
def test_load_on_cuda(small_bundle: Path) -> None:
    need_cuda(OnnxDeviceEngine(Bundle.open(small_bundle), "cuda"))
    model = load(small_bundle, "cuda")
    assert model.info.provider == "CUDAExecutionProvider"
    assert all(report.greedy for report in verify_golden(model).values())

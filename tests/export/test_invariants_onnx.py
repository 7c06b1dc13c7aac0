"""Invariants 1 to 5 in the exported graphs of several variants, on ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rillet.export.parity.gate import TOLERANCE as PARITY
from rillet.runtime import Bundle
from rillet.runtime.engines.ort.host_engine import OnnxEngine
from rillet.train import Checkpoint
from support.models import SMALL
from support.streams import assert_same, cut_streams, real_tokens, run_engine, run_torch

TOLERANCE = 1e-5
REMEMBERING = ["every part", "keyed by the suffix", "single CNN, keyed by the suffix"]
"""Together with a model without a memory, each part of a graph in each of its forms."""


@pytest.fixture(scope="module")
def tokens(small: Checkpoint, text: str) -> list[int]:
    return small.tokenizer.encode(text[:60_000])


@pytest.fixture(scope="module", params=[*REMEMBERING, "no memory"])
def variant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def engine(variant: str, small_bundle: Path, variant_bundle: Callable[[str], Path]) -> OnnxEngine:
    path = small_bundle if variant == "every part" else variant_bundle(variant)
    return OnnxEngine(Bundle.open(path), "cpu")


@pytest.fixture(scope="module")
def checkpoint(
    variant: str, small: Checkpoint, variant_checkpoint: Callable[[str], Checkpoint]
) -> Checkpoint:
    return small if variant == "every part" else variant_checkpoint(variant)


@given(case=cut_streams())
def test_any_cut_gives_the_same_logits_and_state(
    engine: OnnxEngine, tokens: list[int], case: tuple[int, int, list[int]]
) -> None:
    seed, batch, chunks = case
    stream = real_tokens(tokens, seed, batch, sum(chunks))
    whole = run_engine(engine, stream, [sum(chunks)])
    assert_same(whole, run_engine(engine, stream, chunks), TOLERANCE)
    assert_same(whole, run_engine(engine, stream, [1] * sum(chunks)), TOLERANCE)


@given(case=cut_streams())
def test_pytorch_and_onnx_runtime_agree(
    engine: OnnxEngine,
    checkpoint: Checkpoint,
    tokens: list[int],
    case: tuple[int, int, list[int]],
) -> None:
    seed, batch, chunks = case
    stream = real_tokens(tokens, seed, batch, sum(chunks))
    wanted = run_torch(checkpoint.model, stream, chunks)
    assert_same(wanted, run_engine(engine, stream, chunks), PARITY["fp32"])


@given(case=cut_streams())
def test_the_same_cut_gives_the_same_bits(
    engine: OnnxEngine, tokens: list[int], case: tuple[int, int, list[int]]
) -> None:
    seed, batch, chunks = case
    stream = real_tokens(tokens, seed, batch, sum(chunks))
    first, second = (run_engine(engine, stream, chunks) for _ in range(2))
    assert_same(first, second, 0.0)


@given(case=cut_streams(), where=st.floats(0, 1), other=st.integers(1, 50))
def test_a_token_changes_no_logit_before_it(
    engine: OnnxEngine,
    tokens: list[int],
    case: tuple[int, int, list[int]],
    where: float,
    other: int,
) -> None:
    seed, batch, chunks = case
    stream = real_tokens(tokens, seed, batch, sum(chunks))
    changed = stream.copy()
    at = round(where * (stream.shape[1] - 1))
    changed[:, at] = (changed[:, at] + other) % engine.vocab_size
    before, _ = run_engine(engine, stream, [sum(chunks)])
    after, _ = run_engine(engine, changed, [sum(chunks)])
    np.testing.assert_array_equal(before[:, :at], after[:, :at])
    assert np.abs(before[:, at] - after[:, at]).max() > 0


@given(case=cut_streams())
def test_rows_never_mix(
    engine: OnnxEngine, tokens: list[int], case: tuple[int, int, list[int]]
) -> None:
    seed, batch, chunks = case
    stream = real_tokens(tokens, seed, batch, sum(chunks))
    logits, state = run_engine(engine, stream, chunks)
    for row in range(batch):
        alone = run_engine(engine, stream[row : row + 1], chunks)
        own = {name: value[row : row + 1] for name, value in state.items()}
        assert_same((logits[row : row + 1], own), alone, TOLERANCE)


def test_the_start_is_zeros_and_nothing_grows(engine: OnnxEngine, tokens: list[int]) -> None:
    state = engine.zero_state(2)
    start = state.read()
    assert not any(value.any() for value in start.values())
    engine.prefill(np.asarray([tokens[:500]] * 2, np.int64), state)
    after = state.read()
    assert {name: value.shape for name, value in after.items()} == {
        name: value.shape for name, value in start.items()
    }
    assert (after["position"] == 500).all()


@pytest.mark.parametrize("variant", REMEMBERING, indirect=True)
@pytest.mark.parametrize("step", [1, 30])
def test_a_zero_key_is_never_found(engine: OnnxEngine, tokens: list[int], step: int) -> None:
    """What stands in an entry that was not learnt makes no difference, to the last bit."""
    stream = np.asarray([tokens[:30]], np.int64)
    found = []
    for token in (0, 5):
        state = engine.zero_state()
        state.write({**state.read(), "memory_tokens": np.full((1, SMALL.memory), token)})
        parts = [engine.prefill(stream[:, at : at + step], state, 0.0) for at in range(0, 30, step)]
        found.append(np.concatenate(parts, axis=1))
        state = engine.zero_state()
        state.write({**state.read(), "memory_tokens": np.full((1, SMALL.memory), token)})
        found.append(np.stack([engine.step(t, state, 0.0).copy() for t in stream.T], axis=1))
    np.testing.assert_array_equal(found[0], found[2])
    np.testing.assert_array_equal(found[1], found[3])


@pytest.mark.parametrize("graph", ["decode", "prefill"])
def test_past_and_present_may_share_one_buffer(
    graph: str, engine: OnnxEngine, tokens: list[int]
) -> None:
    """Every state tensor bound to one address, for input and output alike."""
    bundle = engine.bundle
    session = ort.InferenceSession(str(bundle.graph(graph)), providers=["CPUExecutionProvider"])
    shared = {row.name: row.zeros(1) for row in bundle.state}
    learn = np.ones(1, np.float32)
    length = 1 if graph == "decode" else 9
    stream = np.asarray([tokens[:180]], np.int64)
    found = []
    for start in range(0, 180, length):
        ids = np.ascontiguousarray(stream[:, start : start + length])
        logits = np.zeros((1, length, bundle.vocab_size), np.float32)
        binding = session.io_binding()
        arrays = {"input_ids": ids, "learn": learn}
        arrays |= {row.past: shared[row.name] for row in bundle.state}
        for name, array in arrays.items():
            binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        outputs = {"logits": logits}
        outputs |= {row.present: shared[row.name] for row in bundle.state}
        for name, array in outputs.items():
            binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        session.run_with_iobinding(binding)
        found.append(logits)
    wanted = run_engine(engine, stream, [length] * (180 // length))
    assert_same(wanted, (np.concatenate(found, axis=1), shared), 0.0)


def test_unsafe_sharing_is_found(small_bundle: Path) -> None:
    """The static proof notices a reader that nothing holds back."""
    from rillet.export.graphs.buffer_safety import unsafe_state

    graph = onnx.load(str(small_bundle / "decode.onnx"))
    assert unsafe_state(graph.graph) == []
    late = onnx.helper.make_node("Identity", ["past.reservoir"], ["late"], name="late_reader")
    graph.graph.node.append(late)
    assert unsafe_state(graph.graph) == ["reservoir (read by late_reader)"]


def test_a_reader_behind_a_reshape_is_seen() -> None:
    """An engine may leave a reshaped tensor where it is: its readers read the past."""
    from rillet.export.graphs.buffer_safety import unsafe_state

    node = onnx.helper.make_node
    graph = onnx.helper.make_graph(
        [
            node("Unsqueeze", ["past.x", "axis"], ["column"]),
            node("Add", ["past.x", "one"], ["present.x"], name="writer"),
            node("Mul", ["column", "column"], ["logits"], name="late"),
        ],
        "graph", [], [onnx.helper.make_empty_tensor_value_info("present.x")],
    )  # fmt: skip
    assert unsafe_state(graph) == ["x (read by late)"]
    graph.node[1].input[0] = "logits"  # the writer now waits for the reader
    ordered = [graph.node[0], graph.node[2], graph.node[1]]
    nodes = [onnx.NodeProto.FromString(entry.SerializeToString()) for entry in ordered]
    del graph.node[:]
    graph.node.extend(nodes)
    assert unsafe_state(graph) == []

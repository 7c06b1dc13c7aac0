"""Invariants 1 to 5 in the exported graphs of several variants, on ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rillet.export.graphs.buffer_safety import unsafe_state
from rillet.export.parity.report import TOLERANCE as PARITY
from rillet.runtime import Bundle
from rillet.runtime.engines.ort.host_engine import OnnxEngine
from rillet.train import Checkpoint
from support.invariants import assert_causal, assert_chunks_agree, assert_repeatable, assert_rows
from support.models import SMALL
from support.streams import assert_same, cut_streams, real_tokens, run_engine, run_torch

TOLERANCE = 1e-5
KEYED = ["every part", "keyed by the suffix", "single CNN, keyed by the suffix"]
OTHERS = ["memory of contexts", "single CNN, memory of contexts", "no memory"]
"""Together, these cover every form of every part of a graph."""


@pytest.fixture(scope="module")
def tokens(small: Checkpoint, text: str) -> list[int]:
    return small.tokenizer.encode(text[:60_000])


@pytest.fixture(scope="module", params=[*KEYED, *OTHERS])
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
def test_any_chunking_gives_the_same_logits_and_state(
    engine: OnnxEngine, tokens: list[int], case: tuple[int, int, list[int]]
) -> None:
    assert_chunks_agree(partial(run_engine, engine), tokens, case)


@given(case=cut_streams())
def test_pytorch_and_onnx_runtime_agree(
    engine: OnnxEngine,
    checkpoint: Checkpoint,
    tokens: list[int],
    case: tuple[int, int, list[int]],
) -> None:
    seed, batch, chunks = case
    stream = real_tokens(tokens, seed, batch, sum(chunks))
    expected = run_torch(checkpoint.model, stream, chunks)
    assert_same(expected, run_engine(engine, stream, chunks), PARITY["fp32"])


@given(case=cut_streams())
def test_the_same_chunking_gives_the_same_bits(
    engine: OnnxEngine, tokens: list[int], case: tuple[int, int, list[int]]
) -> None:
    assert_repeatable(partial(run_engine, engine), tokens, case)


@given(case=cut_streams(), where=st.floats(0, 1), other=st.integers(1, 50))
def test_a_token_changes_no_logit_before_it(
    engine: OnnxEngine,
    tokens: list[int],
    case: tuple[int, int, list[int]],
    where: float,
    other: int,
) -> None:
    assert_causal(partial(run_engine, engine), tokens, case, where, other, engine.vocab_size)


@given(case=cut_streams())
def test_rows_never_mix(
    engine: OnnxEngine, tokens: list[int], case: tuple[int, int, list[int]]
) -> None:
    assert_rows(lambda stream, chunks, _: run_engine(engine, stream, chunks), tokens, case)


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


@pytest.mark.parametrize("variant", KEYED, indirect=True)
@pytest.mark.parametrize("step", [1, 30])
def test_a_zero_key_is_never_recalled(engine: OnnxEngine, tokens: list[int], step: int) -> None:
    """The token of an entry that was not learned changes no bit of the logits."""
    stream = np.asarray([tokens[:30]], np.int64)

    def logits_beside(token: int) -> tuple[np.ndarray, np.ndarray]:
        tokens = {"memory_tokens": np.full((1, SMALL.memory), token)}
        state = engine.zero_state()
        state.write({**state.read(), **tokens})
        parts = [engine.prefill(stream[:, at : at + step], state, 0.0) for at in range(0, 30, step)]
        state = engine.zero_state()
        state.write({**state.read(), **tokens})
        steps = [engine.step(column, state, 0.0).copy() for column in stream.T]
        return np.concatenate(parts, axis=1), np.stack(steps, axis=1)

    for first, second in zip(logits_beside(0), logits_beside(5), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("graph", ["decode", "prefill"])
def test_past_and_present_may_share_a_buffer(
    graph: str, engine: OnnxEngine, tokens: list[int]
) -> None:
    """Bind the input and the output of every state tensor to one address."""
    bundle = engine.bundle
    session = ort.InferenceSession(str(bundle.graph(graph)), providers=["CPUExecutionProvider"])
    shared = {row.name: row.zeros(1) for row in bundle.state}
    learn = np.ones(1, np.float32)
    length = 1 if graph == "decode" else 9
    stream = np.asarray([tokens[:180]], np.int64)
    parts = []
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
        parts.append(logits)
    expected = run_engine(engine, stream, [length] * (180 // length))
    assert_same(expected, (np.concatenate(parts, axis=1), shared), 0.0)


def test_unsafe_sharing_is_detected(small_bundle: Path) -> None:
    """The static proof detects a reader that may run after the write."""
    graph = onnx.load(str(small_bundle / "decode.onnx"))
    assert unsafe_state(graph.graph) == []
    late = onnx.helper.make_node("Identity", ["past.reservoir"], ["late"], name="late_reader")
    graph.graph.node.append(late)
    assert unsafe_state(graph.graph) == ["reservoir (read by late_reader)"]


def test_a_reader_behind_a_reshape_is_detected() -> None:
    """A reshaped tensor may alias the past, so its readers read the past."""
    node = onnx.helper.make_node
    graph = onnx.helper.make_graph(
        [
            node("Unsqueeze", ["past.x", "axis"], ["column"]),
            node("Add", ["past.x", "one"], ["present.x"], name="writer"),
            node("Mul", ["column", "column"], ["logits"], name="late"),
        ],
        "graph",
        [],
        [onnx.helper.make_empty_tensor_value_info("present.x")],
    )
    assert unsafe_state(graph) == ["x (read by late)"]
    graph.node[1].input[0] = "logits"  # the writer now waits for the reader
    ordered = [graph.node[0], graph.node[2], graph.node[1]]
    nodes = [onnx.NodeProto.FromString(entry.SerializeToString()) for entry in ordered]
    del graph.node[:]
    graph.node.extend(nodes)
    assert unsafe_state(graph) == []

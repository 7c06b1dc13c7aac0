"""The generating graph draws the tokens of the host's sampler from the same random numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from rillet.runtime import Bundle, BundleError, EngineError, Sampler, SamplingParams
from rillet.runtime.engines.base import Drawing
from rillet.runtime.engines.ort.generate_graph import GraphGenerator
from rillet.runtime.engines.ort.host_engine import OnnxEngine

SAMPLING: list[dict[str, Any]] = [
    {"temperature": 0.0},
    {"temperature": 1.0},
    {"temperature": 0.3},
    {"temperature": 1.3, "top_k": 1},
    {"temperature": 1.0, "top_k": 7},
    {"temperature": 1.0, "top_k": 10_000},
    {"temperature": 1.2, "top_p": 0.5},
    {"temperature": 0.9, "top_p": 0.0001},
    {"temperature": 0.8, "top_k": 12, "top_p": 0.9},
]


@pytest.fixture(scope="module")
def engine(nano_bundle: Path) -> OnnxEngine:
    return OnnxEngine(Bundle.open(nano_bundle), "cpu")


def prompt(engine: OnnxEngine, rows: int) -> tuple[Any, np.ndarray]:
    state = engine.zero_state(rows)
    tokens = np.random.default_rng(5).integers(0, engine.vocab_size, (rows, 40))
    return state, engine.prefill(tokens, state)[:, -1].copy()


@pytest.mark.parametrize("sampling", SAMPLING, ids=str)
@pytest.mark.parametrize("learn", [0.0, 1.0])
def test_it_draws_what_the_host_draws(
    engine: OnnxEngine, sampling: dict[str, Any], learn: float
) -> None:
    """Two rows, three calls; then logits and state match the host's own steps."""
    rows, count = 2, 25
    generator = GraphGenerator(engine)
    state, logits = prompt(engine, rows)
    other, expected = prompt(engine, rows)
    samplers = [Sampler(SamplingParams(seed=row, **sampling)) for row in range(rows)]
    randoms = [np.random.Generator(np.random.PCG64(row)) for row in range(rows)]
    for _ in range(3):
        numbers = np.stack([random.random(count) for random in randoms])
        tokens, logits = generator.generate(
            state, logits, numbers, Drawing(**sampling), learn=learn
        )
        for drawn in tokens.T:
            chosen = [sampler.draw(row) for sampler, row in zip(samplers, expected, strict=True)]
            assert drawn.tolist() == chosen
            expected = engine.step(np.asarray(chosen), other, learn).copy()
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    for name, value in state.read().items():
        np.testing.assert_allclose(value, other.read()[name], atol=1e-5, err_msg=name)


def test_it_stops_at_the_end_token_of_any_row(engine: OnnxEngine) -> None:
    generator = GraphGenerator(engine)
    numbers = np.random.default_rng(0).random((2, 64))
    state, logits = prompt(engine, 2)
    whole, _ = generator.generate(state, logits, numbers, Drawing())
    end = int(whole[1, 20])
    stop = min(int(np.flatnonzero(row == end)[0]) for row in whole if (row == end).any())
    state, logits = prompt(engine, 2)
    tokens, last = generator.generate(state, logits, numbers, Drawing(), end_token=end)
    assert tokens.tolist() == whole[:, : stop + 1].tolist()
    # The state has read just the returned tokens, so the stream continues from there.
    rest, _ = generator.generate(state, last, numbers[:, stop + 1 :], Drawing())
    assert rest.tolist() == whole[:, stop + 1 :].tolist()


def test_a_failed_call_leaves_the_stream_unchanged(engine: OnnxEngine) -> None:
    state, logits = prompt(engine, 1)
    before = state.read()
    with pytest.raises(EngineError, match="the stream is where it was"):
        GraphGenerator(engine).generate(state, logits[:, :-1], np.zeros((1, 3)), Drawing())
    for name, value in state.read().items():
        np.testing.assert_array_equal(value, before[name])


def test_a_bundle_without_it_says_so(engine: OnnxEngine) -> None:
    manifest = {**engine.bundle.manifest, "graphs": {"prefill": {}}}
    bundle = Bundle(engine.bundle.path, manifest, engine.state_table)
    with pytest.raises(BundleError, match="no generate graph"):
        GraphGenerator(OnnxEngine(bundle, "cpu"))


def test_its_form(nano_bundle: Path) -> None:
    """One loop with the weights inside it, and only operators of the default domain."""
    graph = onnx.load(str(nano_bundle / "generate.onnx")).graph
    loops = [node for node in graph.node if node.op_type == "Loop"]
    assert len(loops) == 1
    body = next(attribute.g for attribute in loops[0].attribute if attribute.name == "body")
    assert sum(len(tensor.raw_data) for tensor in body.initializer) > 100_000
    assert sum(len(tensor.raw_data) for tensor in graph.initializer) < 100
    assert {node.domain for node in (*graph.node, *body.node)} == {""}
    names = [node.name for node in body.node]
    assert len(set(names)) == len(names)
    assert any(name.startswith("wave_cnn/") for name in names)

"""Reading the memory by a scatter gives the same numbers, on ONNX Runtime only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from rillet.export import ExportOptions, quantize
from rillet.export.bundle.writer import write_bundle
from rillet.export.graphs.build import decode_graph
from rillet.export.graphs.scatter_read import read_by_scatter
from rillet.runtime import Bundle, EngineError, ParityError
from rillet.runtime.engines.ort.host_engine import OnnxEngine
from rillet.runtime.engines.ort.providers import create_session
from rillet.runtime.engines.tensorrt.build import BuildOptions, build_engine
from rillet.train import Checkpoint, DualCNN
from support.models import SMALL
from support.operations import ROOT

KEYED = ROOT / "models" / "bible-nano"
"""A bundle whose memory has keys."""


def additions(graph: onnx.GraphProto) -> int:
    """Count the scatters with addition in a graph and its subgraphs."""
    count = 0
    for node in graph.node:
        for attribute in node.attribute:
            count += attribute.name == "reduction" and attribute.s == b"add"
            if attribute.type == onnx.AttributeProto.GRAPH:
                count += additions(attribute.g)
    return count


def step(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = create_session(model.SerializeToString(), "cpu", 1)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def full_memory(bundle: Bundle, rows: int, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Inputs of a step with every entry of the memory filled."""
    inputs: dict[str, np.ndarray] = {
        "input_ids": random.integers(0, bundle.vocab_size, (rows, 1)),
        "learn": np.asarray([1, 0] * rows, np.float32)[:rows],
    }
    for row in bundle.state:
        value = row.zeros(rows)
        if row.name == "memory_tokens":
            value[...] = random.integers(0, bundle.vocab_size, value.shape)
        elif value.dtype == np.float32:
            value[...] = random.standard_normal(value.shape) * 0.1
        inputs[row.past] = value
    return inputs


def test_the_numbers_are_the_same(random: np.random.Generator) -> None:
    bundle = Bundle.open(KEYED)
    plain = onnx.load(bundle.graph("decode"))
    fast = read_by_scatter(plain)
    assert (additions(plain.graph), additions(fast.graph)) == (0, 1)
    inputs = full_memory(bundle, 5, random)
    # Move the keys near the one that the step stores, so that many match.
    keys = step(plain, inputs)["present.memory_keys"]
    inputs["past.memory_keys"][:] = keys[:, :1] + inputs["past.memory_keys"] * 0.3
    expected, actual = step(plain, inputs), step(fast, inputs)
    assert expected.keys() == actual.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("key", ["reservoir", "contexts"])
def test_the_form_of_large_vocabularies_is_rewritten_too(key: str) -> None:
    """Above 128 tokens, the portable form reads a token as two digits."""
    config = SMALL.replace(vocab_size=300, memory_key=key, memory=96, contexts="1 3 word")
    model = DualCNN(config).fit(torch.arange(3000) * 7 % 300, [b" "] * 300).eval()
    plain = decode_graph(model)
    fast = read_by_scatter(plain)
    assert additions(fast.graph) == 1
    assert len(fast.graph.node) < len(plain.graph.node)
    assert not any("followed.high" in tensor.name for tensor in fast.graph.initializer)
    past = {f"past.{name}": value.numpy() for name, value in model.zero_state(2).items()}
    inputs = {"learn": np.ones(2, np.float32), **past}
    other = dict(inputs)
    for token in (3, 299, 3, 299, 3):
        ids = np.asarray([[token], [token // 2]])
        expected = step(plain, {"input_ids": ids, **inputs})
        actual = step(fast, {"input_ids": ids, **other})
        np.testing.assert_allclose(actual["logits"], expected["logits"], atol=1e-5)
        inputs |= {n.replace("present", "past"): v for n, v in expected.items() if n != "logits"}
        other |= {n.replace("present", "past"): v for n, v in actual.items() if n != "logits"}


def test_contexts_are_scattered_onto_the_prediction() -> None:
    config = SMALL.replace(memory_key="contexts", memory=90, contexts="1 3 word", vocab_size=6)
    plain = decode_graph(DualCNN(config).fit(torch.arange(300) * 7 % 6, [b" "] * 6).eval())
    fast = read_by_scatter(plain)
    assert additions(fast.graph) == 1
    # One reshaping and the scatter take the place of five nodes.
    assert len(fast.graph.node) == len(plain.graph.node) - 3
    assert read_by_scatter(fast) == fast


def test_without_a_memory_nothing_changes(variant_checkpoint: Callable[[str], Checkpoint]) -> None:
    plain = decode_graph(variant_checkpoint("no memory").model)
    assert read_by_scatter(plain) == plain


def test_rewriting_is_idempotent(nano_bundle: Path) -> None:
    fast = read_by_scatter(onnx.load(Bundle.open(nano_bundle).graph("decode")))
    assert read_by_scatter(fast) == fast


def test_an_unknown_form_is_refused() -> None:
    plain = onnx.load(Bundle.open(KEYED).graph("decode"))
    for node in plain.graph.node:
        if node.name.startswith("memory/followed/"):
            node.input[:] = [
                name.replace("present.memory_tokens", "input_ids") for name in node.input
            ]
    with pytest.raises(ParityError, match="a form that cannot be rewritten"):
        read_by_scatter(plain)


@pytest.mark.slow
def test_which_graphs_are_rewritten(small: Checkpoint, small_bundle: Path, tmp_path: Path) -> None:
    """decode.onnx stays portable unless the options or its precision make it ORT-only."""

    def scatters(bundle: Bundle) -> dict[str, int]:
        return {
            kind: additions(onnx.load(bundle.graph(kind)).graph)
            for kind in bundle.manifest["graphs"]
        }

    portable = Bundle.open(small_bundle)
    assert scatters(portable) == {"decode": 0, "prefill": 0, "generate": 1}
    assert not any("only" in entry for entry in portable.manifest["graphs"].values())
    options = ExportOptions(onnxruntime_only=True, static_batch=2, parity_steps=500)
    write_bundle(small, tmp_path / "only", options=options)
    only = Bundle.open(tmp_path / "only")
    assert scatters(only) == {"decode": 1, "prefill": 0, "generate": 1, "decode_static": 1}
    entries = only.manifest["graphs"]
    assert entries["decode"]["only"] == entries["decode_static"]["only"] == "onnxruntime"
    with pytest.raises(EngineError, match="written for onnxruntime alone"):
        build_engine(only, "decode", None, BuildOptions())
    # Both forms predict the same from the same state.
    tokens = np.asarray([1, 2, 3])
    one, other = (OnnxEngine(bundle, "cpu") for bundle in (portable, only))
    states = one.zero_state(3), other.zero_state(3)
    for _ in range(40):
        expected, actual = one.step(tokens, states[0]), other.step(tokens, states[1])
        np.testing.assert_allclose(actual, expected, atol=1e-5)
        tokens = expected.argmax(axis=1)
    int8 = quantize(only, tmp_path / "int8", "int8", max_loss_rise=9, tokens=600)
    assert scatters(int8) == {"decode": 1, "prefill": 0, "generate": 1, "decode_static": 1}
    assert {entry["only"] for entry in int8.manifest["graphs"].values()} == {"onnxruntime"}

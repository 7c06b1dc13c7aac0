"""The memory read by a scatter: the same numbers, for ONNX Runtime alone."""

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
from rillet.export.graphs.scatter_read import scatter_read
from rillet.runtime import Bundle, EngineError, ParityError
from rillet.runtime.engines.ort.host_engine import OnnxEngine
from rillet.runtime.engines.ort.providers import create_session
from rillet.runtime.engines.tensorrt.build import BuildOptions, build_engine
from rillet.train import Checkpoint, DualCNN
from support.models import SMALL


def additions(graph: onnx.GraphProto) -> int:
    """Scatters with addition in a graph and in the bodies inside it."""
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
    """A step's inputs with every entry of the memory filled, many of them near the next key."""
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


def test_it_gives_the_same_numbers(nano_bundle: Path, random: np.random.Generator) -> None:
    bundle = Bundle.open(nano_bundle)
    plain = onnx.load(bundle.graph("decode"))
    fast = scatter_read(plain)
    assert (additions(plain.graph), additions(fast.graph)) == (0, 1)
    inputs = full_memory(bundle, 5, random)
    # Keys that match: those that the step itself would store.
    keys = step(plain, inputs)["present.memory_keys"]
    inputs["past.memory_keys"][:] = keys[:, :1] + inputs["past.memory_keys"] * 0.3
    wanted, found = step(plain, inputs), step(fast, inputs)
    assert wanted.keys() == found.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, atol=1e-5, err_msg=name)


def test_two_digits_are_rewritten_too() -> None:
    """Above 128 tokens the portable form reads the memory otherwise."""
    config = SMALL.replace(vocab_size=300)
    model = DualCNN(config).fit(torch.arange(3000) * 7 % 300).eval()
    plain = decode_graph(model)
    fast = scatter_read(plain)
    assert additions(fast.graph) == 1
    assert len(fast.graph.node) < len(plain.graph.node)
    assert not any("followed.high" in tensor.name for tensor in fast.graph.initializer)
    past = {f"past.{name}": value.numpy() for name, value in model.zero_state(2).items()}
    inputs = {"learn": np.ones(2, np.float32), **past}
    other = dict(inputs)
    for token in (3, 299, 3, 299, 3):
        ids = np.asarray([[token], [token // 2]])
        wanted = step(plain, {"input_ids": ids, **inputs})
        found = step(fast, {"input_ids": ids, **other})
        np.testing.assert_allclose(found["logits"], wanted["logits"], atol=1e-5)
        inputs |= {n.replace("present", "past"): v for n, v in wanted.items() if n != "logits"}
        other |= {n.replace("present", "past"): v for n, v in found.items() if n != "logits"}


def test_without_a_memory_nothing_changes(variant_checkpoint: Callable[[str], Checkpoint]) -> None:
    plain = decode_graph(variant_checkpoint("no memory").model)
    assert scatter_read(plain) == plain


def test_twice_is_once(nano_bundle: Path) -> None:
    fast = scatter_read(onnx.load(Bundle.open(nano_bundle).graph("decode")))
    assert scatter_read(fast) == fast


def test_another_read_is_refused(nano_bundle: Path) -> None:
    plain = onnx.load(Bundle.open(nano_bundle).graph("decode"))
    for node in plain.graph.node:
        if node.name.startswith("memory/followed/"):
            node.input[:] = [
                name.replace("present.memory_tokens", "input_ids") for name in node.input
            ]
    with pytest.raises(ParityError, match="no form that can be rewritten"):
        scatter_read(plain)


@pytest.mark.slow
def test_which_graphs_have_it(small: Checkpoint, small_bundle: Path, tmp_path: Path) -> None:
    """decode.onnx stays portable unless it is asked otherwise, or its products are not."""

    def found(bundle: Bundle) -> dict[str, int]:
        return {
            kind: additions(onnx.load(bundle.graph(kind)).graph)
            for kind in bundle.manifest["graphs"]
        }

    portable = Bundle.open(small_bundle)
    assert found(portable) == {"decode": 0, "prefill": 0, "generate": 1}
    assert not any("only" in entry for entry in portable.manifest["graphs"].values())
    options = ExportOptions(onnxruntime_only=True, static_batch=2, parity_steps=500)
    write_bundle(small, tmp_path / "only", options=options)
    only = Bundle.open(tmp_path / "only")
    assert found(only) == {"decode": 1, "prefill": 0, "generate": 1, "decode_static": 1}
    entries = only.manifest["graphs"]
    assert entries["decode"]["only"] == entries["decode_static"]["only"] == "onnxruntime"
    with pytest.raises(EngineError, match="written for onnxruntime alone"):
        build_engine(only, "decode", None, BuildOptions())
    # A step of each form from the same state gives the same prediction.
    tokens = np.asarray([1, 2, 3])
    one, other = (OnnxEngine(bundle, "cpu") for bundle in (portable, only))
    states = one.zero_state(3), other.zero_state(3)
    for _ in range(40):
        wanted, got = one.step(tokens, states[0]), other.step(tokens, states[1])
        np.testing.assert_allclose(got, wanted, atol=1e-5)
        tokens = wanted.argmax(axis=1)
    int8 = quantize(only, tmp_path / "int8", "int8", max_loss_rise=9, tokens=600)
    assert found(int8) == {"decode": 1, "prefill": 0, "generate": 1, "decode_static": 1}
    assert {entry["only"] for entry in int8.manifest["graphs"].values()} == {"onnxruntime"}

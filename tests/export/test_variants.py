"""Every variant of the model exports, passes the gate and generates."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from rillet.export.bundle.writer import write_bundle
from rillet.export.parity.report import TOLERANCE
from rillet.runtime import Bundle, load
from rillet.runtime.engines.ort.host_engine import OnnxEngine
from rillet.runtime.engines.tensorrt.api import installed_tensorrt
from rillet.runtime.engines.tensorrt.build import parse
from rillet.runtime.golden import verify_golden
from rillet.train import Checkpoint, DualCNNConfig, load_checkpoint, state_shapes
from rillet.train.model.adaptation import ONLINE
from support.models import SMALL, VARIANTS, train_small
from support.operators import complaints
from support.streams import assert_same, real_tokens, run_engine, run_torch

Bundles = Callable[[str], Path]
Checkpoints = Callable[[str], Checkpoint]

ALWAYS = ("single CNN", "keyed by the suffix", "no memory", "reservoir in blocks")
"""Variants that together omit and replace every part; the others are marked slow."""

every_variant = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in ALWAYS else pytest.mark.slow) for name in VARIANTS],
)


@every_variant
def test_passes_the_gate_and_generates(
    name: str, variant_bundle: Bundles, variant_checkpoint: Checkpoints
) -> None:
    model = load(variant_bundle(name))
    parity = model.bundle.manifest["parity"]
    assert {row["graph"] for row in parity} == {"decode", "prefill", "generate"}
    for row in parity:
        assert row["greedy_differences"] == 0
        assert max(output["max"] for output in row["outputs"].values()) <= TOLERANCE["fp32"]
    for report in verify_golden(model).values():
        assert max(report.logits, *report.state.values()) <= TOLERANCE["fp32"]
    first, second = (model.generate("The ", max_new_tokens=40, seed=5) for _ in range(2))
    assert first == second
    known = set(variant_checkpoint(name).tokenizer.decode(list(range(model.vocab_size))))
    assert len(first) == 40
    assert set(first) <= known


@every_variant
def test_state_table_matches_the_configuration(
    name: str, variant_bundle: Bundles, variant_checkpoint: Checkpoints
) -> None:
    """Parts that the configuration omits have no state, in manifest and graphs alike."""
    bundle, config = Bundle.open(variant_bundle(name)), variant_checkpoint(name).model.config
    shapes = state_shapes(config)
    table = {row.name: (row.shape, row.dtype) for row in bundle.state}
    assert table == {name: (s, str(d).removeprefix("torch.")) for name, (s, d) in shapes.items()}
    assert list(table) == list(shapes)
    assert ("reservoir" in table) == (config.reservoir != "none")
    assert ("attention_window" in table) == (config.reservoir == "attentive")
    assert ("wave_buffer" in table) == (config.architecture == "dual_cnn")
    assert ("memory_keys" in table) == ("memory_tokens" in table) == bool(config.entries)
    contexts = config.memory > 0 and config.memory_key == "contexts"
    own = {"context_tokens", "context_slots", "memory_slots"}
    assert own & set(table) == (own if contexts else set())
    assert set(ONLINE) & set(table) == (set(ONLINE) if config.adapts else set())
    assert ("suffix" in table) == (config.memory > 0 and config.memory_key == "suffix")
    for kind in ("decode", "prefill"):
        graph = onnx.load(str(bundle.graph(kind))).graph
        past = [entry.name.removeprefix("past.") for entry in graph.input]
        assert past == ["input_ids", "learn", *shapes]
        nodes = [node.op_type for node in graph.node]
        scans = (config.reservoir != "none") + contexts + 2 * config.adapts
        assert nodes.count("Scan") == (scans if kind == "prefill" else 0)
        assert not {"If", "Loop", "SequenceAt", "ConcatFromSequence"} & set(nodes)


@every_variant
@pytest.mark.parametrize("kind", ["decode", "prefill"])
def test_tensorrt_can_read_the_graphs(name: str, kind: str, variant_bundle: Bundles) -> None:
    """Checked against the list of operators, and by the parser if it is installed."""
    path = Bundle.open(variant_bundle(name)).graph(kind)
    assert complaints(onnx.load(str(path))) == []
    if find_spec("tensorrt_rtx") is not None:
        assert parse(installed_tensorrt("tensorrt_rtx"), path.read_bytes(), kind)


@every_variant
def test_bundle_and_checkpoint_hold_the_configuration(
    name: str, variant_bundle: Bundles, variant_checkpoint: Checkpoints
) -> None:
    path, config = variant_bundle(name), variant_checkpoint(name).model.config
    model = json.loads((path / "bundle.json").read_text())["model"]
    assert DualCNNConfig.from_dict(model) == config
    assert load_checkpoint(path.parent).model.config == config


@every_variant
def test_engine_and_pytorch_agree_for_any_chunking(
    name: str, variant_bundle: Bundles, variant_checkpoint: Checkpoints, text: str
) -> None:
    """Several rows, longer than every window and the memory."""
    checkpoint = variant_checkpoint(name)
    engine = OnnxEngine(Bundle.open(variant_bundle(name)), "cpu")
    tokens = real_tokens(checkpoint.tokenizer.encode(text[:5_000]), 3, 3, 75)
    expected = run_torch(checkpoint.model, tokens, [75])
    for chunks in ([75], [30, 1, 1, 43], [1] * 75):
        assert_same(expected, run_torch(checkpoint.model, tokens, chunks), 1e-5)
        assert_same(expected, run_engine(engine, tokens, chunks), TOLERANCE["fp32"])


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in ALWAYS else pytest.mark.slow)
        for name in VARIANTS
        if "memory" not in VARIANTS[name]
    ],
)
def test_generated_text_is_not_stored(name: str, variant_bundle: Bundles) -> None:
    """A step stores the key of its past, so the first step stores a zero key."""
    session = load(variant_bundle(name)).session("read")
    session.feed("The text")
    session.generate(max_new_tokens=5, seed=0)
    keys = session.state["memory_keys"][0]
    np.testing.assert_array_equal(keys[:14].any(axis=1), [False, *[True] * 7, *[False] * 6])
    np.testing.assert_allclose(np.linalg.norm(keys[1:8], axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("single CNN", ["one CNN", "the last 20 steps, keyed by the reservoir's state"]),
        ("no memory", ["| standard, 24 units |", "two CNNs", "| memory | none |"]),
        (
            "keyed by the suffix",
            ["attentive, 24 units, attention over the last 7 states", "keyed by the last 5 tokens"],
        ),
        ("the least", ["one CNN", "| reservoir | none |", "| memory | none |"]),
    ],
)
def test_the_model_card_describes_the_variant(
    name: str, rows: list[str], variant_bundle: Bundles
) -> None:
    card = (variant_bundle(name) / "README.md").read_text()
    assert [row for row in rows if row not in card] == []
    assert "could not be set up" not in card


def test_fallbacks_are_in_the_manifest_and_on_the_card(
    variant_checkpoint: Checkpoints, tmp_path: Path
) -> None:
    checkpoint = variant_checkpoint("the least")
    held_out: dict[str, Any] = {"tokens": 500, "loss": 2.5, "without_memory": 2.5, "first": 2.5}
    notes = ["memory: too large; continuing without", "read: missing; continuing without"]
    training = {**checkpoint.training, "fallbacks": notes, "held_out": held_out}
    fallen_back = Checkpoint(checkpoint.model, checkpoint.tokenizer, training)
    write_bundle(fallen_back, tmp_path / "bundle", steps=50)
    assert load(tmp_path / "bundle").bundle.manifest["training"]["fallbacks"] == notes
    card = (tmp_path / "bundle" / "README.md").read_text()
    assert "\n".join(f"- {note}" for note in notes) in card
    # Without a memory there is one loss, not two equal ones.
    assert "| no memory | 2.5000 |" in card
    assert "with the memory" not in card


@pytest.mark.parametrize("length", [1, 9])
def test_smallest_windows(text: str, length: int) -> None:
    """A suffix of one token, and one longer than the memory."""
    changes = {"wave_kernel": 2, "memory_key": "suffix", "suffix_length": length, "memory": 4}
    config = SMALL.replace(architecture="single_cnn", reservoir="none", **changes)
    model = train_small(config, text[:20_000], steps=2).model
    tokens = np.arange(40, dtype=np.int64).reshape(2, 20) % config.vocab_size
    assert_same(run_torch(model, tokens, [20]), run_torch(model, tokens, [1] * 20), 1e-5)

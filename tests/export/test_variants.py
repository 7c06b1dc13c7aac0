"""Every variant of the model trains, exports, passes the gate and generates like the rest."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from conftest import SMALL, VARIANTS, train_small
from rillet.export.bundle.writer import write_bundle
from rillet.export.parity.gate import TOLERANCE
from rillet.runtime import Bundle, load
from rillet.runtime.engines.ort.host_engine import OnnxEngine
from rillet.runtime.engines.tensorrt.api import installed_tensorrt
from rillet.runtime.engines.tensorrt.build import parse
from rillet.runtime.golden import verify_golden
from rillet.train import Checkpoint, DualCNNConfig, load_checkpoint, state_shapes
from support.operators import complaints
from support.streams import assert_same, real_tokens, run_engine, run_torch

Bundles = Callable[[str], Path]
Checkpoints = Callable[[str], Checkpoint]

ALWAYS = ("single CNN", "keyed by the suffix", "no memory", "reservoir in blocks")
"""Variants that between them leave out and replace each part; the others are slow."""

every_variant = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in ALWAYS else pytest.mark.slow) for name in VARIANTS],
)


@every_variant
def test_it_passes_the_gate_and_generates(
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
def test_its_state_is_its_table(
    name: str, variant_bundle: Bundles, variant_checkpoint: Checkpoints
) -> None:
    """What the configuration leaves out has no state, in no file; the rest has all of it."""
    bundle, config = Bundle.open(variant_bundle(name)), variant_checkpoint(name).model.config
    shapes = state_shapes(config)
    table = {row.name: (row.shape, row.dtype) for row in bundle.state}
    assert table == {name: (s, str(d).removeprefix("torch.")) for name, (s, d) in shapes.items()}
    assert list(table) == list(shapes)
    assert ("reservoir" in table) == (config.reservoir != "none")
    assert ("attention_window" in table) == (config.reservoir == "attentive")
    assert ("wave_buffer" in table) == (config.architecture == "dual_cnn")
    assert ("memory_keys" in table) == ("memory_tokens" in table) == bool(config.memory)
    assert ("suffix" in table) == (config.memory > 0 and config.memory_key == "suffix")
    for kind in ("decode", "prefill"):
        graph = onnx.load(str(bundle.graph(kind))).graph
        past = [entry.name.removeprefix("past.") for entry in graph.input]
        assert past == ["input_ids", "learn", *shapes]
        nodes = [node.op_type for node in graph.node]
        recurrent = kind == "prefill" and config.reservoir != "none"
        assert nodes.count("Scan") == (1 if recurrent else 0)
        assert not {"If", "Loop", "SequenceAt", "ConcatFromSequence"} & set(nodes)


@every_variant
@pytest.mark.parametrize("kind", ["decode", "prefill"])
def test_tensorrt_can_read_it(name: str, kind: str, variant_bundle: Bundles) -> None:
    """By the list of operators, and by the parser where it is installed."""
    path = Bundle.open(variant_bundle(name)).graph(kind)
    assert complaints(onnx.load(str(path))) == []
    if find_spec("tensorrt_rtx") is not None:
        assert parse(installed_tensorrt("tensorrt_rtx"), path.read_bytes(), kind)


@every_variant
def test_the_bundle_holds_its_configuration(
    name: str, variant_bundle: Bundles, variant_checkpoint: Checkpoints
) -> None:
    path, config = variant_bundle(name), variant_checkpoint(name).model.config
    model = json.loads((path / "bundle.json").read_text())["model"]
    assert DualCNNConfig.from_dict(model) == config
    assert load_checkpoint(path.parent).model.config == config


@every_variant
def test_engine_and_pytorch_agree_on_any_cut(
    name: str, variant_bundle: Bundles, variant_checkpoint: Checkpoints, text: str
) -> None:
    """Over several rows, past every window and the memory's capacity."""
    checkpoint = variant_checkpoint(name)
    engine = OnnxEngine(Bundle.open(variant_bundle(name)), "cpu")
    tokens = real_tokens(checkpoint.tokenizer.encode(text[:5_000]), 3, 3, 75)
    wanted = run_torch(checkpoint.model, tokens, [75])
    for chunks in ([75], [30, 1, 1, 43], [1] * 75):
        assert_same(wanted, run_torch(checkpoint.model, tokens, chunks), 1e-5)
        assert_same(wanted, run_engine(engine, tokens, chunks), TOLERANCE["fp32"])


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in ALWAYS else pytest.mark.slow)
        for name in VARIANTS
        if "memory" not in VARIANTS[name]
    ],
)
def test_what_is_not_learnt_is_not_stored(name: str, variant_bundle: Bundles) -> None:
    """The key of a step is its past's: that of the first step, all zeros, is no key."""
    session = load(variant_bundle(name)).session("read")
    session.feed("The text")
    session.generate(max_new_tokens=5, seed=0)
    keys = session.state["memory_keys"][0]
    np.testing.assert_array_equal(keys[:14].any(axis=1), [False, *[True] * 7, *[False] * 6])
    np.testing.assert_allclose(np.linalg.norm(keys[1:8], axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("single CNN", ["one CNN", "the last 20 steps, found by the reservoir's state"]),
        ("standard reservoir", ["| standard, 24 units |", "two CNNs"]),
        ("keyed by the suffix", ["attentive, 24 units, attention over the last 7 states",
                                 "found by the last 5 tokens"]),
        ("the least", ["one CNN", "| reservoir | none |", "| memory | none |"]),
    ],
)  # fmt: skip
def test_the_model_card_says_what_it_is(
    name: str, rows: list[str], variant_bundle: Bundles
) -> None:
    card = (variant_bundle(name) / "README.md").read_text()
    assert [row for row in rows if row not in card] == []
    assert "could not be set up" not in card


def test_fallbacks_are_in_the_bundle_and_on_its_card(
    variant_checkpoint: Checkpoints, tmp_path: Path
) -> None:
    made = variant_checkpoint("the least")
    held_out: dict[str, Any] = {"tokens": 500, "loss": 2.5, "without_memory": 2.5, "first": 2.5}
    notes = ["memory: no such luck; going on with no memory", "read: none; going on without"]
    training = {**made.training, "fallbacks": notes, "held_out": held_out}
    write_bundle(Checkpoint(made.model, made.tokenizer, training), tmp_path / "made", steps=50)
    assert load(tmp_path / "made").bundle.manifest["training"]["fallbacks"] == notes
    card = (tmp_path / "made" / "README.md").read_text()
    assert "\n".join(f"- {note}" for note in notes) in card
    # Without a memory there is one loss, not two that are the same.
    assert "| no memory | 2.5000 |" in card
    assert "with the memory" not in card


@pytest.mark.parametrize("length", [1, 9])
def test_the_narrowest_windows(text: str, length: int) -> None:
    """A suffix of one token, and one that is longer than the memory."""
    changes = {"wave_kernel": 2, "memory_key": "suffix", "suffix_length": length, "memory": 4}
    config = SMALL.replace(architecture="single_cnn", reservoir="none", **changes)
    model = train_small(config, text[:20_000], steps=2).model
    tokens = np.arange(40, dtype=np.int64).reshape(2, 20) % config.vocab_size
    assert_same(run_torch(model, tokens, [20]), run_torch(model, tokens, [1] * 20), 1e-5)

"""The parity gate passes correct graphs and rejects wrong ones."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch

from rillet.export.bundle import writer as bundle_writer
from rillet.export.parity.gate import run_gate
from rillet.export.parity.graph_parity import compare_graph
from rillet.export.parity.report import TOLERANCE, ParityReport
from rillet.export.parity.texts import real_text
from rillet.runtime import Bundle, ParityError
from rillet.runtime.engines.ort.host_engine import OnnxEngine
from rillet.train import Checkpoint, load_checkpoint
from support.streams import assert_same, run_engine, run_torch


def read(checkpoint: Checkpoint, count: int) -> npt.NDArray[np.int64]:
    """Real text, ``[1, count]``."""
    text = real_text(None, checkpoint.tokenizer, checkpoint.model, count)
    return text.repeated(count)


@pytest.fixture(scope="module")
def engine(nano_bundle: Path) -> OnnxEngine:
    return OnnxEngine(Bundle.open(nano_bundle), "cpu")


def test_ten_thousand_streamed_steps(nano: Checkpoint, engine: OnnxEngine) -> None:
    """The step graph reads real text like PyTorch."""
    tokens = read(nano, 10_000)
    assert nano.tokenizer.decode(tokens[0, :4].tolist()) == "The "
    row = compare_graph(nano.model, engine, "decode", tokens, "real text", TOLERANCE["fp32"])
    assert row.tokens == 10_000
    assert row.greedy_differences == 0
    assert set(row.deltas) == {"logits", *nano.model.zero_state()}
    assert max(row.deltas.values()) <= 1e-4, row.deltas


def test_ten_thousand_steps_of_shakespeare(
    nano: Checkpoint, engine: OnnxEngine, tinyshakespeare: str
) -> None:
    """The prefill graph reads another text like PyTorch, in chunks of random length."""
    tokens = np.asarray([nano.tokenizer.encode(tinyshakespeare[:10_000])], np.int64)
    row = compare_graph(nano.model, engine, "prefill", tokens, "real text", TOLERANCE["fp32"])
    assert row.greedy_differences == 0
    assert max(row.deltas.values()) <= 1e-4, row.deltas


def test_any_chunking_of_the_default_preset(nano: Checkpoint, engine: OnnxEngine) -> None:
    """Longer than the memory and the engine's own chunks, within 1e-5.

    Between PyTorch and the engine, the gate's tolerance holds.
    """
    tokens = read(nano, 1_500)
    whole = run_engine(engine, tokens, [1_500])
    assert_same(whole, run_engine(engine, tokens, [700, 1, 1, 798]), 1e-5)
    assert_same(whole, run_engine(engine, tokens, [1] * 1_500), 1e-5)
    assert_same(whole, run_torch(nano.model, tokens, [1_500]), TOLERANCE["fp32"])


@pytest.mark.slow
def test_error_does_not_grow_with_the_stream(nano: Checkpoint, engine: OnnxEngine) -> None:
    """Invariant 6, over 100,000 steps: PyTorch in chunks, ONNX Runtime step by step."""
    tokens = np.tile(read(nano, 50_000), 2)
    state, engine_state = nano.model.zero_state(), engine.zero_state()
    worst = []
    for start in range(0, tokens.shape[1], 10_000):
        delta = 0.0
        for at in range(start, start + 10_000, 500):
            chunk = tokens[:, at : at + 500]
            with torch.no_grad():
                expected, state = nano.model(torch.from_numpy(chunk), state)
            for index in range(500):
                actual = engine.step(chunk[:, index], engine_state)
                delta = max(delta, float(np.abs(expected[:, index].numpy() - actual).max()))
        worst.append(delta)
    assert worst[-1] <= 1e-4
    assert worst[-1] <= 2 * max(worst[:2]), worst


@pytest.mark.parametrize(
    ("tensor", "named"),
    [
        ("reservoir.leak", "reservoir"),
        ("reservoir.distance_bias", "logits"),
        ("wave_cnn.blocks.0.taps", "wave"),
        ("memory.gate.output.bias", "logits"),
        ("memory.key.projection", "memory_keys"),
    ],
)
def test_a_slightly_different_model_fails(
    tensor: str, named: str, small: Checkpoint, small_bundle: Path, small_run: Path
) -> None:
    """One row off by 1 % fails, and the report names the output that differs."""
    other = load_checkpoint(small_run).model
    with torch.no_grad():
        other.state_dict()[tensor][0].mul_(1.01)
    engine = OnnxEngine(Bundle.open(small_bundle), "cpu")
    rows = run_gate(other, small.tokenizer, engine, steps=600)
    with pytest.raises(ParityError, match=r"(decode|prefill) on (reference text|random tokens)"):
        ParityReport(tuple(rows)).check()
    worst = {name for row in rows for name, delta in row.deltas.items() if delta > 1e-4}
    assert any(name.startswith(named) for name in worst), worst


def test_a_failed_gate_writes_nothing(
    small: Checkpoint,
    small_run: Path,
    small_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An export with a wrong graph leaves the old bundle, or none."""
    other = load_checkpoint(small_run).model
    with torch.no_grad():
        other.reservoir.leak.mul_(0.99)
    wrong = bundle_writer.decode_graph(other)
    right = onnx.load(str(small_bundle / "prefill.onnx"))
    monkeypatch.setattr(bundle_writer, "decode_graph", lambda model, opset: wrong)
    monkeypatch.setattr(bundle_writer, "prefill_graph", lambda model, opset, last: right)
    target = tmp_path / "bundle"
    shutil.copytree(small_bundle, target)
    before = {file.name: file.read_bytes() for file in target.iterdir()}
    for folder in (target, tmp_path / "fresh"):
        with pytest.raises(ParityError, match="decode on reference text"):
            bundle_writer.write_bundle(small, folder, steps=300)
    assert {file.name: file.read_bytes() for file in target.iterdir()} == before
    assert [file.name for file in tmp_path.iterdir()] == ["bundle"]


def test_a_nan_fails(small: Checkpoint, small_bundle: Path) -> None:
    engine = OnnxEngine(Bundle.open(small_bundle), "cpu")
    tokens = read(small, 40)
    row = compare_graph(small.model, engine, "decode", tokens, "real text", 1e-4)
    row.outputs["wave_buffer"].add(np.zeros((1, 1)), np.full((1, 1), np.nan), np.zeros(1), 1e-4)
    assert "wave_buffer" in str(row.failure(1e-4))

"""Lowered graphs agree with each other and with their checkpoint, for every variant."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from rillet.export import quantize, verify
from rillet.export.bundle.writer import write_bundle
from rillet.export.cli.quantize import quantize_command
from rillet.export.options import ExportOptions
from rillet.export.quantization.conversions import PRECISIONS
from rillet.export.quantization.matmuls import find_matmuls
from rillet.runtime import load
from rillet.runtime.bundle import Bundle
from rillet.runtime.engines.base import Drawing
from rillet.runtime.engines.ort.generate_graph import GraphGenerator
from rillet.runtime.engines.ort.host_engine import OnnxEngine
from rillet.runtime.errors import UsageError
from rillet.train import Checkpoint

WAYS = [(name, way) for name, entry in PRECISIONS.items() for way in entry.methods]


@pytest.mark.parametrize(("precision", "method"), WAYS)
def test_the_generating_graph_matches_the_step_graph(
    small_bundle: Path, tmp_path: Path, precision: str, method: str
) -> None:
    lowered = quantize(
        small_bundle, tmp_path / "out", precision, method=method, tokens=300, max_loss_rise=1.0
    )
    engine = OnnxEngine(lowered, "cpu")
    prompt = np.random.default_rng(4).integers(0, engine.vocab_size, (1, 50))
    generated, stepped = engine.zero_state(), engine.zero_state()
    logits = engine.prefill(prompt, generated)[:, -1].copy()
    engine.prefill(prompt, stepped)
    tokens, _ = GraphGenerator(engine).generate(
        generated, logits, np.zeros((1, 24)), Drawing(temperature=0.0)
    )
    last = logits
    for token in tokens[0]:
        assert last[0].max() - last[0, token] < 1e-3
        last = engine.step(np.asarray([token]), stepped, 0.0).copy()


@pytest.mark.parametrize(("precision", "method"), [way for way in WAYS if way[1] != "static"])
def test_the_recurrence_is_lowered_on_request(
    nano_bundle: Path, tmp_path: Path, precision: str, method: str
) -> None:
    difference = 1.0 if precision == "fp16" else None
    lowered = quantize(
        nano_bundle,
        tmp_path / "out",
        precision,
        method=method,
        recurrence=True,
        tokens=300,
        max_loss_rise=1.0,
        max_difference=difference,
    )
    decode = onnx.load(lowered.graph("decode"))
    names = {t.name for t in decode.graph.initializer if t.data_type == onnx.TensorProto.FLOAT}
    assert "reservoir.recurrent" not in names
    assert lowered.manifest["quantization"]["recurrence"]
    for row in lowered.manifest["parity"]:
        if row["provider"] == "native":  # it keeps the recurrence in float32
            continue
        assert row["outputs"]["reservoir"]["max"] > 1e-6


def test_fp16_lowers_as_many_products_as_the_tolerance_allows(
    nano: Checkpoint, nano_bundle: Path, tmp_path: Path
) -> None:
    """The default 5e-3 passes the gate; a wide tolerance lowers every product."""
    lowered = quantize(nano_bundle, tmp_path / "out", "fp16", tokens=500)
    report = verify(lowered, nano, steps=500).check()
    assert report.precision == "fp16"
    wider = quantize(nano_bundle, tmp_path / "wider", "fp16", tokens=500, max_difference=0.1)
    sizes = [b.manifest["quantization"]["lowered_bytes"]["decode"] for b in (lowered, wider)]
    every = sum(m.array.size for m in find_matmuls(onnx.load(nano_bundle / "decode.onnx")))
    assert 0 < sizes[0] <= sizes[1] == 2 * every


def test_int8_is_judged_by_its_loss(small: Checkpoint, small_bundle: Path, tmp_path: Path) -> None:
    """Logits beyond float32's tolerance are reported, and the report passes."""
    lowered = quantize(small_bundle, tmp_path / "out", "int8", tokens=300)
    report = verify(lowered, small, steps=200)
    assert report.passed
    assert report.comparisons[0].outputs["logits"].largest > 1e-4


def test_options_that_do_not_fit_the_precision_are_refused(
    small_bundle: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"max_difference is 0\.1 for int8"):
        quantize(small_bundle, tmp_path / "out", "int8", max_difference=0.1)
    with pytest.raises(UsageError, match="static int8 cannot lower the recurrence"):
        quantize(small_bundle, tmp_path / "out", "int8", method="static", recurrence=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_other_graphs_are_rebuilt_or_left_out(small: Checkpoint, tmp_path: Path) -> None:
    options = ExportOptions(static_batch=2, last_logits=True, genai=True, parity_steps=100)
    write_bundle(small, tmp_path / "bundle", options=options)
    lowered = quantize(tmp_path / "bundle", tmp_path / "out", "int8", tokens=300)
    assert lowered.manifest["graphs"]["decode_static"]["batch"] == 2
    assert lowered.last_logits
    left_out = lowered.manifest["quantization"]["left_out"]
    assert "genai_config.json" in left_out
    assert not {entry.name for entry in lowered.path.iterdir()} & set(left_out)
    static = onnx.load(lowered.graph("decode_static"))
    assert all(e.type.tensor_type.shape.dim[0].dim_value == 2 for e in static.graph.input)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["single CNN", "standard reservoir", "the least", "no memory", "reservoir in blocks"],
)
def test_every_variant_can_be_lowered(
    variant_bundle: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    for precision, method in WAYS:
        lowered = quantize(
            variant_bundle(name),
            tmp_path / "out",
            precision,
            method=method,
            tokens=100,
            max_loss_rise=1.0,
        )
        assert load(lowered.path).generate("The ", max_new_tokens=5, seed=1)


def test_the_quantize_command(small_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = [str(small_bundle), "--precision", "int8", "--out", str(out), "--tokens", "300"]
    result = CliRunner().invoke(quantize_command, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert "nats per token" in result.output
    assert "TensorRT cannot read them" in result.output
    assert json.loads((out / "bundle.json").read_text())["quantization"]["tokens"] == 300
    assert Bundle.open(out).manifest["precision"] == "int8"

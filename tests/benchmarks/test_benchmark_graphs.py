"""A short run of the benchmark of graphs, which checks that each row computes the same."""

from __future__ import annotations

import pytest

import graphs
from lib.samples import fresh_model
from support.models import SMALL


@pytest.mark.slow
def test_graphs_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    # Wide enough that a GRU can match the number of parameters.
    model = fresh_model(SMALL.replace(hidden=96))
    figures = graphs.measure(model, bursts=1, compiled=False, capacities=())
    graphs.show(figures)
    shown = capsys.readouterr().out
    rows = figures["microseconds"]
    assert all(value > 0 for value in rows.values())
    for name in ("plain export", "decode.onnx", "prefill.onnx", "generate.onnx", "GRU", "PyTorch"):
        assert any(row.startswith(name) for row in rows)
        assert name in shown
    assert "decode.onnx / plain export, memory 20" in figures["ratios"]

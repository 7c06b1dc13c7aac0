"""The benchmark of graphs, briefly: it checks on the way that each row computes what it says."""

from __future__ import annotations

import pytest

import graphs
from support.models import SMALL


@pytest.mark.slow
def test_graphs_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    # Wide enough for a GRU of as many parameters.
    model = graphs.make_model(SMALL.replace(hidden=96))
    figures = graphs.measure(model, bursts=1, compiled=False, capacities=())
    graphs.show(figures)
    shown = capsys.readouterr().out
    rows = figures["microseconds"]
    assert all(value > 0 for value in rows.values())
    for name in ("plain export", "decode.onnx", "prefill.onnx", "generate.onnx", "GRU", "PyTorch"):
        assert any(row.startswith(name) for row in rows)
        assert name in shown
    assert "decode.onnx / plain export, memory 20" in figures["ratios"]

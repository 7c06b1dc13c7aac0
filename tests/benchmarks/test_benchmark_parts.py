"""A short run of the benchmark of the step's parts: all forms compute the same."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import parts


def test_parts_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "parts.json"
    monkeypatch.setattr(sys, "argv", ["parts.py", "--bursts", "1", "--json", str(path)])
    parts.main()
    written, shown = json.loads(path.read_text()), capsys.readouterr().out
    figures = written["figures"]
    assert written["machine"]["onnxruntime"]
    assert len(figures["microseconds"]) == 26
    for name, value in figures["microseconds"].items():
        assert value > 0
        assert name in shown
        assert (figures["difference"][name] < 1e-5) == (not name.endswith("not exact"))

"""A minute of clients that behave as badly as they can."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.server import NANO

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "serve_storm.py"


@pytest.mark.slow
def test_nothing_breaks_and_nothing_grows() -> None:
    seconds = os.environ.get("RILLET_STORM_SECONDS", "60")
    result = subprocess.run(
        [sys.executable, str(SCRIPT), str(NANO), "--seconds", seconds],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    figures = json.loads(result.stdout)
    assert figures["counts"]["compared"] >= 20
    assert figures["nonsense"] == ""

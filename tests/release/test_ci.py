"""CI ends in time: slow tests that would begin too late skip, and say so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SLOW = "tests/train/test_budget.py::test_a_gpu_is_measured"


def test_slow_tests_do_not_begin_after_the_time_for_them() -> None:
    code = (
        "import pytest, sys\n"
        "class Marks:\n"
        "    def pytest_itemcollected(self, item): item.add_marker('slow')\n"
        "sys.exit(pytest.main(sys.argv[1:], [Marks()]))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, "-p", "no:cacheprovider", SLOW],
        cwd=ROOT,
        env={**os.environ, "RILLET_SLOW_UNTIL": "0"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout
    assert "RILLET_SLOW_UNTIL has passed" in run.stdout

"""The wheel on aarch64, under emulation."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_aarch64.py"


@pytest.mark.slow
def test_the_wheel_generates_on_aarch64(small_bundle: Path) -> None:
    if not os.environ.get("RILLET_EMULATE") and shutil.which("qemu-aarch64-static") is None:
        pytest.skip(
            "qemu-aarch64-static is not installed: to fetch it too (150 MB, two minutes), set "
            "RILLET_EMULATE=1, or run scripts/check_aarch64.py"
        )
    command = [sys.executable, str(SCRIPT), str(small_bundle)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode == 3:
        pytest.skip(result.stderr.strip())
    assert result.returncode == 0, result.stderr
    assert "aarch64 onnxruntime 1.23.2 numpy 2.2.6" in result.stdout
    assert "decode: 64 greedy tokens equal" in result.stdout
    assert "text: " in result.stdout

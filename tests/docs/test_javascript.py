"""decode.onnx driven from another language by its documented contract: examples/javascript."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "javascript"
BUNDLES = sorted(path.parent for path in (ROOT / "models").glob("*/bundle.json"))


@pytest.fixture(scope="module")
def node() -> str:
    """The node interpreter, if it finds onnxruntime-node."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("there is no node on this machine")
    probe = [found, "-e", "require('onnxruntime-node')"]
    if subprocess.run(probe, cwd=EXAMPLE, capture_output=True, check=False).returncode:
        pytest.skip("onnxruntime-node is not installed: make javascript")
    return found


def run(node: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [node, "generate.js", *map(str, arguments)]
    return subprocess.run(command, cwd=EXAMPLE, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
def test_golden_tokens(node: str, bundle: Path) -> None:
    result = run(node, bundle, "--golden")
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout == "64 greedy tokens match PyTorch's\n"


def test_it_writes(node: str) -> None:
    result = run(node, ROOT / "models" / "shakespeare-nano", "ROMEO:", 80)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("ROMEO:")
    assert len(result.stdout) == len("ROMEO:") + 80 + 1

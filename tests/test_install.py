"""The device install, in a virtual environment of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment that holds `rillet[cpu]` and what it needs, and nothing else."""
    folder = tmp_path_factory.mktemp("device")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "constraints.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("runtime", "train", "export"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
    probe = [*pip, "download", "--quiet", "--no-deps", "--dest", str(folder / "probe"), "click"]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("no package index can be reached")
    install = [*pip, "install", "--quiet", "--constraint", "constraints.txt", ".[cpu]"]
    result = subprocess.run(install, cwd=source, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return python


def run(python: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(python.parent / "rillet"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_cpu_extra_is_enough_to_generate(device: Path, small_bundle: Path) -> None:
    listing = [str(device), "-m", "pip", "list", "--format", "json"]
    packages = json.loads(subprocess.run(listing, capture_output=True, check=True).stdout)
    names = {package["name"].lower() for package in packages}
    assert {"rillet", "numpy", "tokenizers", "safetensors", "click", "onnxruntime"} <= names
    assert not names & {"torch", "onnx", "onnxscript"}
    result = run(device, "generate", small_bundle, "The ", "--max-new-tokens", 40, "--seed", 2)
    assert result.returncode == 0, result.stderr
    here = subprocess.run(
        [sys.executable, "-m", "rillet.runtime.cli", "generate", str(small_bundle), "The ",
         "--max-new-tokens", "40", "--seed", "2"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert result.stdout == here.stdout
    assert run(device, "verify", small_bundle).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["train", "--corpus", "builtin:pydoc", "--out", "run"], "train"),
        (["export", "run", "--out", "bundle"], "export"),
        (["verify", "{bundle}", "--checkpoint", "run"], "export"),
    ],
)
def test_what_is_missing_is_named(
    device: Path, small_bundle: Path, arguments: list[str], extra: str
) -> None:
    result = run(device, *(part.format(bundle=small_bundle) for part in arguments))
    assert result.returncode == 1
    assert "which is not installed" in result.stderr
    assert f"pip install 'rillet[{extra}]'" in result.stderr
    assert "Traceback" not in result.stderr

"""Wheels of the package index that tests look into; kept in ``build/wheels`` from run to run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WHEELS = ROOT / "build" / "wheels"


def fetch(requirement: str) -> Path:
    """A wheel for this Python, such as ``onnxruntime-gpu==1.31.1``; skips where there is none."""
    name, _, version = requirement.partition("==")
    stem = f"{name.replace('-', '_')}-{version}"
    python = f"cp{sys.version_info[0]}{sys.version_info[1]}"

    def kept() -> list[Path]:
        return sorted([*WHEELS.glob(f"{stem}-{python}*.whl"), *WHEELS.glob(f"{stem}-py3*.whl")])

    if not kept():
        WHEELS.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download",
                   "--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(WHEELS),
                   requirement]  # fmt: skip
        subprocess.run(command, capture_output=True, check=False)
    if not kept():
        pytest.skip(f"{requirement} cannot be had from the package index for this Python")
    return kept()[0]

"""Wheels: ours, built from the sources, and wheels of the package index that tests inspect."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
WHEELS = ROOT / "build" / "wheels"
"""Downloaded wheels, kept between runs."""


_FILES = (
    "pyproject.toml",
    "setup.py",
    "README.md",
    "LICENSE",
    "MANIFEST.in",
    "CHANGELOG.md",
    "SECURITY.md",
    "constraints.txt",
)


def copy_source(folder: Path) -> Path:
    """Copy the sources of a release into a new folder."""
    folder.mkdir()
    for name in _FILES:
        shutil.copy(ROOT / name, folder)
    for name in ("runtime", "train", "export", "integrations", "native"):
        ignored = shutil.ignore_patterns("__pycache__", "librillet.native.*")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    return folder


def build(source: Path, out: Path, epoch: int = 1_600_000_000, **other: Any) -> tuple[Path, Path]:
    """Build the source distribution and the wheel of a folder as ``make dist`` does.

    It needs no package index, since setuptools is installed.
    """
    command = [sys.executable, str(ROOT / "scripts" / "build_dist.py"), "--source", str(source)]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch), **other.pop("env", {})}
    command += ["--out", str(out)]
    result = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, **other
    )
    assert result.returncode == 0, result.stderr
    (sdist,), (wheel,) = out.glob("rillet-*.tar.gz"), out.glob("rillet-*.whl")
    return sdist, wheel


def fetch(requirement: str) -> Path:
    """Download a wheel for this Python, such as ``onnxruntime-gpu==1.31.1``, or skip the test."""
    name, _, version = requirement.partition("==")
    stem = f"{name.replace('-', '_')}-{version}"
    python = f"cp{sys.version_info[0]}{sys.version_info[1]}"

    def downloaded() -> list[Path]:
        return sorted([*WHEELS.glob(f"{stem}-{python}*.whl"), *WHEELS.glob(f"{stem}-py3*.whl")])

    if not downloaded():
        WHEELS.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download"]
        command += ["--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(WHEELS)]
        subprocess.run([*command, requirement], capture_output=True, check=False)
    if not downloaded():
        pytest.skip(f"the package index has no {requirement} for this Python")
    return downloaded()[0]

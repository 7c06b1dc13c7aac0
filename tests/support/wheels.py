"""Wheels: ours, built from source, and those of the package index that tests inspect."""

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
"""Downloads, kept between runs."""


def copy_source(folder: Path) -> Path:
    """Copy the files that a release is built from to a new folder."""
    folder.mkdir()
    for name in (
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "MANIFEST.in",
        "CHANGELOG.md",
        "SECURITY.md",
        "constraints.txt",
    ):
        shutil.copy(ROOT / name, folder)
    for name in ("runtime", "train", "export"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def build(source: Path, out: Path, epoch: int = 1_600_000_000, **other: Any) -> tuple[Path, Path]:
    """Build a folder's source distribution and its wheel as ``make dist`` does.

    Needs no package index: setuptools is installed here.
    """
    command = [sys.executable, str(ROOT / "scripts" / "build_dist.py"), "--source", str(source)]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch), **other.pop("env", {})}
    result = subprocess.run(
        [*command, "--out", str(out)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        **other,
    )
    assert result.returncode == 0, result.stderr
    (sdist,), (wheel,) = out.glob("rillet-*.tar.gz"), out.glob("rillet-*.whl")
    return sdist, wheel


def fetch(requirement: str) -> Path:
    """Download a wheel for this Python, such as ``onnxruntime-gpu==1.31.1``, or skip."""
    name, _, version = requirement.partition("==")
    stem = f"{name.replace('-', '_')}-{version}"
    python = f"cp{sys.version_info[0]}{sys.version_info[1]}"

    def kept() -> list[Path]:
        return sorted([*WHEELS.glob(f"{stem}-{python}*.whl"), *WHEELS.glob(f"{stem}-py3*.whl")])

    if not kept():
        WHEELS.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download"]
        command += ["--quiet", "--no-deps", "--only-binary=:all:"]
        command += ["--dest", str(WHEELS), requirement]
        subprocess.run(command, capture_output=True, check=False)
    if not kept():
        pytest.skip(f"{requirement} cannot be had from the package index for this Python")
    return kept()[0]

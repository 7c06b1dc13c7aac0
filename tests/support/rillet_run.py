"""The program ``rillet-run``, built from this tree."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

__all__ = ["needs_compiler", "program", "rillet_run"]

ROOT = Path(__file__).parents[2]
COMPILER = os.environ.get("CC", "cc")

needs_compiler = pytest.mark.skipif(
    not (shutil.which("make") and shutil.which(COMPILER)),
    reason="there is no C compiler, or no make",
)


@cache
def program() -> Path:
    """Build the program if its sources have changed; workers wait for each other."""
    (ROOT / "build").mkdir(exist_ok=True)
    with (ROOT / "build" / "rillet-run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        built = subprocess.run(
            [str(shutil.which("make")), "-s", "rillet-run"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
    assert built.returncode == 0, built.stderr
    assert not built.stderr, built.stderr  # no warnings
    return ROOT / "build" / "rillet-run"


def rillet_run(
    *arguments: object, stdin: bytes = b"", env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run it."""
    return subprocess.run(
        [program(), *map(str, arguments)],
        input=stdin,
        capture_output=True,
        check=False,
        env=env,
    )

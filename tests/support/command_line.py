"""Running the real command in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

RILLET = [sys.executable, "-m", "rillet.runtime.cli"]


def rillet(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command with some arguments; ``options`` are those of ``subprocess.run``."""
    result: subprocess.CompletedProcess[str] = subprocess.run(
        [*RILLET, *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        env={**os.environ, "PYTHONUTF8": "1"},
        **options,
    )
    return result

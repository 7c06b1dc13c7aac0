"""The real command, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

RILLET = [sys.executable, "-m", "rillet.runtime.cli"]


def rillet(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Run the command with these arguments; ``options`` go to ``subprocess.run``."""
    return subprocess.run(
        [*RILLET, *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        env={**os.environ, "PYTHONUTF8": "1"},
        **options,  # type: ignore[call-overload]
    )

"""The time and memory of processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

__all__ = ["measure_fresh_process", "peak_mb", "resident_mb", "run_rillet"]

_STATUS = Path("/proc/self/status")

_PROGRAM = """
import json, sys, time
start = time.perf_counter()
import rillet.runtime
imported = time.perf_counter()
model = rillet.runtime.load(sys.argv[1])
loaded = time.perf_counter()
session = model.session()
session.feed("It was " * 200)
text = session.generate(max_new_tokens=300, seed=1)
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({
    "import_ms": (imported - start) * 1e3,
    "load_ms": (loaded - imported) * 1e3,
    "resident_mb": int(status["VmRSS"].split()[0]) * 1024 / 1e6,
    "peak_mb": int(status["VmHWM"].split()[0]) * 1024 / 1e6,
}))
"""


def measure_fresh_process(bundle: Path, repetitions: int = 7) -> dict[str, float] | None:
    """Measure a new process that imports the runtime, loads a bundle and generates text.

    Args:
        bundle: The bundle to load.
        repetitions: Processes to run, after a first one that warms the disk cache.

    Returns:
        The least time (ms) and memory (MB) over all processes; ``None`` on a system without
        ``/proc``.
    """
    if not _STATUS.exists():
        return None
    runs = []
    for _ in range(repetitions + 1):
        command = [sys.executable, "-c", _PROGRAM, str(bundle)]
        result = subprocess.run(command, capture_output=True, check=True)
        runs.append(json.loads(result.stdout))
    return {name: min(run[name] for run in runs[1:]) for name in runs[0]}


def resident_mb() -> float:
    """Resident memory of this process in MB; NaN on a system without ``/proc``."""
    return _status_mb("VmRSS")


def peak_mb() -> float:
    """The most that this process has had; ``ru_maxrss`` counts what its parent had, too."""
    return _status_mb("VmHWM")


def _status_mb(name: str) -> float:
    if not _STATUS.exists():
        return float("nan")
    status = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    return int(status[name].split()[0]) * 1024 / 1e6


def run_rillet(*words: str) -> None:
    """Run a command of rillet's in a process of its own.

    Raises:
        subprocess.CalledProcessError: It failed, and said why.
    """
    subprocess.run([sys.executable, "-m", "rillet.runtime.cli", *words], check=True)

"""What a fresh process takes to import the runtime, load a bundle and write text."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

__all__ = ["footprint"]

_CODE = """
import json, sys, time
began = time.perf_counter()
import rillet.runtime
imported = time.perf_counter()
model = rillet.runtime.load(sys.argv[1])
loaded = time.perf_counter()
session = model.session()
session.feed("It was " * 200)
text = session.generate(max_new_tokens=300, seed=1)
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({
    "import_ms": (imported - began) * 1e3,
    "load_ms": (loaded - imported) * 1e3,
    "resident_mb": int(status["VmRSS"].split()[0]) * 1024 / 1e6,
    "peak_mb": int(status["VmHWM"].split()[0]) * 1024 / 1e6,
}))
"""


def footprint(bundle: Path, repetitions: int = 7) -> dict[str, float] | None:
    """The least time and memory of several processes; ``None`` where the system does not tell.

    The first process is not counted: it reads the files from the disk.
    """
    if not Path("/proc/self/status").exists():
        return None
    found = []
    for _ in range(repetitions + 1):
        command = [sys.executable, "-c", _CODE, str(bundle)]
        result = subprocess.run(command, capture_output=True, check=True)
        found.append(json.loads(result.stdout))
    return {name: min(run[name] for run in found[1:]) for name in found[0]}

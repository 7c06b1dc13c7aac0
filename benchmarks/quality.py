"""Held-out loss of a preset, and the CPU time that training took.

    python benchmarks/quality.py CORPUS [--json FILE] [options of rillet train]

Runs the real command in a process of its own. The project's figures use tiny Shakespeare:
1,115,394 characters, of which the last 10 % are held out and read as one stream.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lib.results import write_results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--json", type=Path)
    arguments, options = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "rillet.runtime.cli", "train"]
        command += ["--corpus", str(arguments.corpus), "--out", str(run), *options]
        start = time.monotonic()
        subprocess.run(command, check=True)
        wall = time.monotonic() - start
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        summary = json.loads((run / "summary.json").read_text())
    held_out = summary["held_out"]
    figures = {
        "command": command[3:4] + options,
        "steps": summary["steps"],
        "parameters": summary["parameters"],
        "loss": held_out["loss"],
        "without_memory": held_out["without_memory"],
        "cpu_minutes": (used.ru_utime + used.ru_stime) / 60,
        "wall_minutes": wall / 60,
    }
    for name, value in figures.items():
        print(f"{name:16} {value if not isinstance(value, float) else round(value, 4)}")
    write_results(arguments.json, figures)


if __name__ == "__main__":
    main()

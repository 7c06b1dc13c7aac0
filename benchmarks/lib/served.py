"""A server in a process of its own, as benchmarks start it."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

__all__ = ["Serving", "cpu_seconds", "wait_for_server"]


class Serving:
    """``rillet serve`` at a free port.

    Args:
        bundle: The bundle.
        *options: Further options of the command.
    """

    def __init__(self, bundle: Path, *options: object) -> None:
        command = [sys.executable, "-m", "rillet.runtime.cli", "serve", str(bundle), "--port", "0"]
        self.process = subprocess.Popen(
            [*command, *map(str, options)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        if not line.startswith("http://"):
            sys.exit(f"the server does not start: {' '.join(command)}")
        self.port = int(line.rpartition(":")[2])
        wait_for_server(f"{line}/health")

    def figure(self, name: str) -> float:
        """A figure of ``/metrics``."""
        url = f"http://127.0.0.1:{self.port}/metrics"
        with urllib.request.urlopen(url, timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        found = [line for line in lines if line.partition("{")[0] == name]
        return sum(float(line.rpartition(" ")[2]) for line in found)

    def wait_until_idle(self) -> None:
        """Wait until no text is written any more."""
        for _ in range(300):
            if not self.figure("rillet_rows") and not self.figure("rillet_waiting"):
                return
            time.sleep(0.1)

    def __enter__(self) -> Serving:
        return self

    def __exit__(self, *_: Any) -> None:
        self.process.terminate()
        self.process.wait(60)
        assert self.process.stdout is not None
        self.process.stdout.close()


def wait_for_server(url: str, seconds: float = 60) -> None:
    """Wait until a server answers."""
    for _ in range(int(seconds / 0.1)):
        try:
            urllib.request.urlopen(url, timeout=5).close()  # noqa: S310
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
        else:
            return
    sys.exit(f"nothing answers at {url}")


def cpu_seconds(process: int) -> float:
    """Processor time that a process has taken."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100

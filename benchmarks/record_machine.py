"""Record what this machine measures of itself, as CSV: a stream for benchmarks/compression.py.

    python benchmarks/record_machine.py OUT [--seconds N] [--rate HZ]

Each line has the time in seconds, what each processor was busy in per cent, context switches and
interrupts a second, memory that is available in MiB, and the load. From Linux's /proc.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--rate", type=float, default=10.0, help="lines a second (10)")
    arguments = parser.parse_args()
    begun = time.monotonic()
    busy, counters = read_stat()
    names = [f"busy{index}" for index in range(len(busy))]
    with arguments.out.open("w") as out:
        out.write(",".join(["time", *names, "switches", "interrupts", "available", "load"]) + "\n")
        for line in itertools.count(1):
            due = line / arguments.rate
            if due > arguments.seconds:
                break
            time.sleep(max(0.0, begun + due - time.monotonic()))
            last_busy, last_counters = busy, counters
            busy, counters = read_stat()
            shares = [
                f"{100 * (now[0] - last[0]) / max(1, now[1] - last[1]):.1f}"
                for now, last in zip(busy, last_busy, strict=True)
            ]
            rates = [
                f"{(now - last) * arguments.rate:.0f}"
                for now, last in zip(counters, last_counters, strict=True)
            ]
            load = Path("/proc/loadavg").read_text().split()[0]
            stamp = f"{time.monotonic() - begun:.1f}"
            out.write(",".join([stamp, *shares, *rates, f"{available():.1f}", load]) + "\n")
            out.flush()


def read_stat() -> tuple[list[tuple[int, int]], tuple[int, int]]:
    """Busy and total ticks of each processor; context switches and interrupts."""
    processors: list[tuple[int, int]] = []
    counters: dict[str, int] = {}
    for line in Path("/proc/stat").read_text().splitlines():
        name, *values = line.split()
        if name.startswith("cpu") and name != "cpu":
            ticks = [int(value) for value in values[:8]]
            processors.append((sum(ticks) - ticks[3] - ticks[4], sum(ticks)))
        else:
            counters[name] = int(values[0])
    return processors, (counters["ctxt"], counters["intr"])


def available() -> float:
    """Available memory in MiB."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable"):
            return int(line.split()[1]) / 1_024
    return 0.0


if __name__ == "__main__":
    main()

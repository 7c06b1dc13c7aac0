"""What one core of this machine does at most: the bounds that steps are held against.

    python benchmarks/limits.py [--json FILE]

Small kernels in C, compiled for this processor, in the thread's own time; the fastest burst counts.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from lib.machine_limits import byte_products, float_products, read_rate
from lib.results import write_results

SIZES = {"16 kB": 1 << 14, "256 kB": 1 << 18, "1 MB": 1 << 20, "8 MB": 1 << 23, "64 MB": 1 << 26}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    figures = {f"GB/s of {name}": read_rate(size) / 1e9 for name, size in SIZES.items()}
    figures["G multiplications with additions a second, float32"] = float_products() / 1e9
    figures["G multiplications with additions a second, int8"] = byte_products() / 1e9
    for name, figure in figures.items():
        print(f"{name:52}{figure:9.1f}")
    write_results(arguments.json, figures)


if __name__ == "__main__":
    main()

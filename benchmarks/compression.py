"""Bits for each byte of a stream: examples/compress.py against gzip, xz, zstd and PPMd.

    python benchmarks/compression.py FILE BUNDLE... [--before EARLIER] [--json FILE]

Each bundle compresses the file with its memory and without, and decompresses it again; a difference
ends the run. With --before, every compressor is given the text of EARLIER: bundles and PPMd read it
first, zstd and xz have it in their windows, gzip cannot. Of these, the size is what the file adds.
Seconds are of the thread, for compressing; decompressing with a bundle takes as long. Needs
`pip install '.[bench]'`.
"""

from __future__ import annotations

import argparse
import gzip
import lzma
import runpy
import time
from collections.abc import Callable
from pathlib import Path

import pyppmd
import zstandard

import rillet.runtime
from lib.results import write_results

EXAMPLE = runpy.run_path(str(Path(__file__).parents[1] / "examples" / "compress.py"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("bundles", nargs="*")
    parser.add_argument("--before", type=Path, help="text that every compressor is given")
    parser.add_argument("--bytes", type=int, default=200_000, help="of the file (200,000)")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    data = arguments.file.read_bytes()[: arguments.bytes]
    before = b"" if arguments.before is None else arguments.before.read_bytes()
    print(f"{len(data)} bytes after {len(before)}; bits a byte, milliseconds a kilobyte")
    figures: dict[str, dict[str, float]] = {}

    def report(name: str, size: int, seconds: float, read: int) -> None:
        figures[name] = {"bits_per_byte": 8 * size / len(data), "ms_per_kB": seconds / read * 1e6}
        print("{bits_per_byte:8.3f} {ms_per_kB:10.3f}".format(**figures[name]), name, flush=True)

    for name, pack in COMPRESSORS.items():
        size, seconds = timed(pack, before + data)
        report(name, size - timed(pack, before)[0], seconds, len(before + data))
    for bundle in arguments.bundles:
        model = rillet.runtime.load(bundle)
        for memory, how in ((True, "learning"), (False, "without memory")):
            begun = time.thread_time()
            packed = EXAMPLE["compress"](model, data, memory, before)
            seconds = time.thread_time() - begun
            if EXAMPLE["decompress"](model, packed, before) != data:
                raise SystemExit(f"Error: {bundle} does not give the file back")
            report(f"{bundle}, {how}", len(packed), seconds, len(before + data))
    write_results(arguments.json, figures)


def timed(pack: Callable[[bytes], bytes], data: bytes) -> tuple[int, float]:
    """The size of what a compressor makes of data, and seconds of the thread."""
    begun = time.thread_time()
    return len(pack(data)), time.thread_time() - begun


def xz(data: bytes) -> bytes:
    return lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)


def zstd(data: bytes) -> bytes:
    return bytes(zstandard.ZstdCompressor(level=22).compress(data))


def ppmd(order: int) -> Callable[[bytes], bytes]:
    def pack(data: bytes) -> bytes:
        return bytes(pyppmd.compress(data, max_order=order, mem_size=1 << 24))

    return pack


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip -9": lambda data: gzip.compress(data, 9),
    "xz -9e": xz,
    "zstd --ultra -22": zstd,
    **{f"PPMd, order {order}, 16 MiB": ppmd(order) for order in (4, 6, 8, 12)},
}


if __name__ == "__main__":
    main()

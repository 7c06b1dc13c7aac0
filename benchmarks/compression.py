"""Bits for each byte of a stream: examples/compress.py against gzip, xz, zstd, PPMd and zpaq.

    python benchmarks/compression.py FILE BUNDLE... [--before EARLIER] [--json FILE]
    python benchmarks/compression.py FILE --train BYTES --out FOLDER [--training OPTIONS]

Each bundle compresses the file with its memory and without, and decompresses it again; a difference
ends the run. With --before, every compressor is given the text of EARLIER: bundles and PPMd read it
first, zpaq as lib/compressors.py says, zstd and xz have it in their windows, gzip cannot. Of these,
the size is what the file adds.

With --train, EARLIER is the first BYTES of FILE, up to the end of a line, and a model is trained on
them: OPTIONS are those of `rillet train` (--steps 300). The rest of the file is compressed, also by
a stream of that model that has read nothing.

Milliseconds are of a processor, for reading and compressing; decompressing with a bundle takes as
long. Needs `pip install '.[bench]'`.
"""

from __future__ import annotations

import argparse
import gzip
import lzma
import resource
import runpy
import shlex
from pathlib import Path

import zstandard

import rillet.runtime
from lib.compressors import Pack, compressors
from lib.own_model import train_own_model
from lib.results import write_results

EXAMPLE = runpy.run_path(str(Path(__file__).parents[1] / "examples" / "compress.py"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("bundles", nargs="*")
    earlier = parser.add_mutually_exclusive_group()
    earlier.add_argument("--before", type=Path, help="text that every compressor is given")
    earlier.add_argument("--train", type=int, help="train a model on so many bytes of the file")
    parser.add_argument("--training", default="--steps 300", help="options of training")
    parser.add_argument("--out", type=Path, help="a new folder for the trained model")
    parser.add_argument("--bytes", type=int, default=200_000, help="to compress (200,000)")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    data = arguments.file.read_bytes()
    before = b"" if arguments.before is None else arguments.before.read_bytes()
    figures: dict[str, dict[str, float]] = {}
    if arguments.train is not None:
        if arguments.out is None:
            parser.error("--train needs --out FOLDER, where the model goes")
        cut = data.find(b"\n", arguments.train) + 1
        if not 0 < cut < len(data):
            parser.error(f"--train {arguments.train} leaves nothing of {arguments.file}")
        before, data = data[:cut], data[cut:]
        own = train_own_model(before, arguments.out, shlex.split(arguments.training))
        print(f"training took {own.seconds / 60:.1f} minutes of a processor, {own.peak_mb:.0f} MB")
        figures["training"] = {"seconds": own.seconds, "peak_mb": own.peak_mb}
        arguments.bundles.append(str(own.bundle))
    data = data[: arguments.bytes]
    print(f"{len(data)} bytes after {len(before)}; bits a byte, milliseconds a kilobyte")

    def report(name: str, size: int, seconds: float, read: int) -> None:
        figures[name] = {"bits_per_byte": 8 * size / len(data), "ms_per_kB": seconds / read * 1e6}
        print("{bits_per_byte:8.3f} {ms_per_kB:10.3f}".format(**figures[name]), name, flush=True)

    common = {name: (pack, before) for name, pack in COMMON.items()}
    for name, (pack, given) in {**common, **compressors(before, data)}.items():
        size, seconds = timed(pack, given + data)
        report(name, size - timed(pack, given)[0], seconds, len(given + data))
    for bundle in arguments.bundles:
        model = rillet.runtime.load(bundle)
        ways = {"learning": (True, before), "without memory": (False, b"")}
        if arguments.train is not None:
            ways["learning, from zeros"] = True, b""
        for how, (memory, given) in ways.items():
            begun = cpu_seconds()
            packed = EXAMPLE["compress"](model, data, memory, given)
            seconds = cpu_seconds() - begun
            if EXAMPLE["decompress"](model, packed, given) != data:
                raise SystemExit(f"Error: {bundle} does not give the file back")
            report(f"{bundle}, {how}", len(packed), seconds, len(given + data))
    write_results(arguments.json, figures)


def timed(pack: Pack, data: bytes) -> tuple[int, float]:
    """The size of what a compressor makes of data, and seconds of the processors."""
    begun = cpu_seconds()
    return pack(data), cpu_seconds() - begun


def cpu_seconds() -> float:
    """Processor time of this process, and of those that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def xz(data: bytes) -> int:
    return len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))


COMMON: dict[str, Pack] = {
    "gzip -9": lambda data: len(gzip.compress(data, 9)),
    "xz -9e": xz,
    "zstd --ultra -22": lambda data: len(zstandard.ZstdCompressor(level=22).compress(data)),
}


if __name__ == "__main__":
    main()

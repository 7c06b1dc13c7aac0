"""PPMd and zpaq, given a text before the one they are measured on.

What they pay for a text is the size of both less that of the first. zpaq changes its model with the
size of its input, a little below each power of two from 2^20 on: if the two sizes lie on different
sides, it is given the end of the first text only.
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyppmd

from .process import peak_mb

__all__ = ["ZPAQ_CHANGES", "Pack", "compressors", "given_before", "ppmd", "zpaq"]

ORDERS, MEGABYTES = (5, 6, 8, 10), 256
"""PPMd's orders and its memory, which are tried in turn."""

ZPAQ_CHANGES = tuple((1 << bits) - 8192 for bits in range(20, 25))
"""Sizes just below those at which zpaq -m5 changes its model.

It sizes its tables by the power of two that is at least the input, 4,095 bytes and a list of four
bytes for each fragment of about 64 KiB.
"""

Pack = Callable[[bytes], int]


def compressors(before: bytes, text: bytes) -> dict[str, tuple[Pack, bytes]]:
    """What gives the compressed size of data, and what it is given before, by name."""
    found: dict[str, tuple[Pack, bytes]] = {
        ppmd_name(order): (partial(ppmd, order), before) for order in ORDERS
    }
    if shutil.which("zpaq") is None:
        print("zpaq is not installed: apt install zpaq", file=sys.stderr)
        return found
    given = before
    for change in ZPAQ_CHANGES:
        if len(before) <= change < len(before) + len(text):
            given = before[len(before) + len(text) - change :]
    found["zpaq -m5"] = zpaq, given
    return found


def ppmd_name(order: int) -> str:
    """The name of PPMd with an order."""
    return f"PPMd, order {order}, {MEGABYTES} MiB"


def ppmd(order: int, data: bytes) -> int:
    """The compressed size of data."""
    return len(pyppmd.compress(data, max_order=order, mem_size=MEGABYTES << 20))


def zpaq(data: bytes) -> int:
    """The size of an archive of one file with the data."""
    with tempfile.TemporaryDirectory() as folder:
        path, archive = Path(folder) / "data", Path(folder) / "data.zpaq"
        path.write_bytes(data)
        command = ["zpaq", "add", str(archive), str(path), "-m5", "-t1"]
        subprocess.run(command, check=True, capture_output=True)
        return archive.stat().st_size


def given_before(
    before: bytes, text: bytes, characters: int
) -> dict[str, Callable[[], dict[str, Any]]]:
    """Measures of each compressor, by name: loss, memory and time.

    Each runs in a process of its own, whose largest resident memory and CPU time count. The
    microseconds are those of both texts over their bytes.

    Args:
        before: The text that is given.
        text: The text that is measured.
        characters: Characters of the second.
    """
    return {
        name: partial(_measure, name, given, text, characters)
        for name, (_, given) in compressors(before, text).items()
    }


def _measure(name: str, given: bytes, text: bytes, characters: int) -> dict[str, Any]:
    first, both = _in_a_process(name, given), _in_a_process(name, given + text)
    return {
        "loss": 8 * (both["bytes"] - first["bytes"]) * math.log(2) / characters,
        "given_bytes": len(given),
        "text_bytes": len(text),
        "compressed_bytes": [first["bytes"], both["bytes"]],
        "cpu_seconds": [first["cpu_seconds"], both["cpu_seconds"]],
        "us_per_byte": both["cpu_seconds"] / (len(given) + len(text)) * 1e6,
        "resident_mb": both["resident_mb"],
    }


def _in_a_process(name: str, data: bytes) -> dict[str, Any]:
    with tempfile.NamedTemporaryFile(suffix=".txt") as file:
        file.write(data)
        file.flush()
        command = [sys.executable, "-m", "lib.compressors", name, file.name]
        folder = Path(__file__).parents[1]
        done = subprocess.run(command, check=True, capture_output=True, cwd=folder)
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


def main() -> None:
    """Compress a file, and print its size, the memory and the CPU time."""
    import resource

    name, path = sys.argv[1:]
    data = Path(path).read_bytes()
    pack, _ = compressors(data, b"")[name]
    who = resource.RUSAGE_CHILDREN if pack is zpaq else resource.RUSAGE_SELF
    began = resource.getrusage(who)
    size = pack(data)
    used = resource.getrusage(who)
    seconds = used.ru_utime + used.ru_stime - began.ru_utime - began.ru_stime
    resident = used.ru_maxrss * 1024 / 1e6 if pack is zpaq else peak_mb()
    figures = {"bytes": size, "cpu_seconds": seconds, "resident_mb": resident}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()

"""What one core of this machine does at most, measured with small kernels of our own.

A library's dot product reaches half of it, so bounds that are made with one are too soft.
"""

from __future__ import annotations

import ctypes
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from .bursts import Burst, least_times

__all__ = ["byte_products", "float_products", "kernels", "read_rate"]

_SOURCE = Path(__file__).with_suffix(".c")
_FLAGS = ("-std=gnu11", "-O3", "-march=native", "-ffast-math", "-shared", "-fPIC")
_BURSTS, _WORK = 30, 1_000_000
"""Bursts, of which the fastest counts, and turns of a loop in each."""


@functools.cache
def kernels() -> ctypes.CDLL:
    """Compile the kernels for this processor, with the machine's C compiler."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "machine_limits.so"
        compiler = shutil.which("cc")
        if compiler is None:
            raise SystemExit("the limits need a C compiler called cc; install gcc or clang")
        subprocess.run([compiler, *_FLAGS, str(_SOURCE), "-o", str(path)], check=True)
        library = ctypes.CDLL(str(path))
    word, address = ctypes.c_int64, ctypes.c_void_p
    library.read_floats.restype = library.fuse.restype = ctypes.c_float
    library.read_floats.argtypes = [address, word, word]
    library.fuse.argtypes = [word, ctypes.c_float, ctypes.c_float, address]
    library.dot_bytes.argtypes = [word, ctypes.c_int32, ctypes.c_int32, address]
    return library


def read_rate(size: int) -> float:
    """Bytes per second that are read of a block again and again: what the caches deliver.

    Args:
        size: Bytes of the block.
    """
    count = max(128, -(-size // 512) * 128)
    # Ones, since zeros would all be one page of memory; on whole cache lines.
    room = np.ones(count + 16, np.float32)
    values = room[-room.ctypes.data % 64 // 4 :][:count]
    times = max(1, 20_000_000 // values.nbytes)

    def read() -> int:
        kernels().read_floats(values.ctypes.data, count, times)
        return values.nbytes * times

    return _rate(read)


def float_products() -> float:
    """Multiplications with additions of float32 per second."""

    def fuse() -> int:
        kernels().fuse(_WORK, 0.999, 1e-9, ctypes.addressof(done))
        return done.value

    done = ctypes.c_int64()
    return _rate(fuse)


def byte_products() -> float:
    """Multiplications with additions of int8 per second; 0 without instructions for them."""

    def dot() -> int:
        kernels().dot_bytes(_WORK, 0x01020304, 0x01000100, ctypes.addressof(done))
        return done.value

    done = ctypes.c_int64()
    return _rate(dot) if dot() else 0.0


def _rate(burst: Burst) -> float:
    """What a burst does per second."""
    return 1e6 / least_times({"": burst}, _BURSTS)[""]

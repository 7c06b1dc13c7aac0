"""The kernels behind the limits of a machine do the work that is counted."""

from __future__ import annotations

import ctypes
import shutil

import numpy as np
import pytest

from lib.machine_limits import kernels

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler called cc")


def test_every_float_is_read() -> None:
    values = np.arange(256, dtype=np.float32)
    assert kernels().read_floats(values.ctypes.data, values.size, 3) == 3 * values.sum()


def test_multiplications_are_counted() -> None:
    done = ctypes.c_int64()
    result = kernels().fuse(5, 1.0, 1.0, ctypes.addressof(done))
    lanes = done.value // 5 // 12
    # Twelve chains of vectors begin with their number, and each gains 1 a turn.
    assert result == lanes * (sum(range(12)) + 12 * 5)


def test_products_of_bytes_are_counted() -> None:
    done = ctypes.c_int64()
    result = kernels().dot_bytes(5, 0x01010101, 0x02020202, ctypes.addressof(done))
    if done.value == 0:
        pytest.skip("this processor has no instruction for products of bytes")
    assert done.value % (5 * 12) == 0
    assert result >= sum(range(12)) + 12 * 5 * 8

"""The NVIDIA driver, called directly: is there one, which GPU, and copies in its memory.

Every driver has these functions, so nothing else need be installed.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ...errors import EngineError

__all__ = ["Gpu", "copy_on_device", "driver_obstacle", "find_gpu", "zero_on_device"]

_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_NOT_INITIALIZED = 3  # CUDA_ERROR_NOT_INITIALIZED: cuInit returns it after a fork
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*


@dataclass(frozen=True)
class Gpu:
    """The first GPU of the machine.

    Attributes:
        name: As the driver calls it.
        capability: Compute capability, such as ``8.7``.
        driver: The newest CUDA version that the driver supports, such as ``12.6``.
        memory: Bytes of its memory; on a Jetson, the memory that it shares with the processor.
    """

    name: str
    capability: str
    driver: str
    memory: int


def driver_obstacle() -> str | None:
    """Say why no GPU can be used; ``None`` if one can.

    This asks the driver itself: without one, the libraries above it crash, or fall back to the
    CPU without an error.
    """
    try:
        driver = ctypes.CDLL(_LIBRARY)
    except OSError:
        return f"there is no NVIDIA driver: {_LIBRARY} cannot be loaded; install the driver"
    status = driver.cuInit(0)
    if status == _NOT_INITIALIZED:
        return (
            "the NVIDIA driver does not work in a process that was forked from one that had used "
            "the GPU; start it with multiprocessing's method 'spawn', or fork before loading"
        )
    if status:
        return (
            f"the NVIDIA driver cannot start (cuInit returns {status}); run nvidia-smi for details"
        )
    count = ctypes.c_int(0)
    if driver.cuDeviceGetCount(ctypes.byref(count)) or count.value < 1:
        return "the NVIDIA driver finds no GPU; run nvidia-smi for details"
    return None


def find_gpu() -> Gpu:
    """Describe the first GPU.

    Raises:
        EngineError: No GPU can be used.
    """
    driver, device = _driver(), ctypes.c_int(0)
    name = ctypes.create_string_buffer(256)
    version, memory = ctypes.c_int(0), ctypes.c_size_t(0)
    _check("cuDeviceGet", driver.cuDeviceGet(ctypes.byref(device), 0))
    _check("cuDeviceGetName", driver.cuDeviceGetName(name, 256, device))
    _check("cuDriverGetVersion", driver.cuDriverGetVersion(ctypes.byref(version)))
    _check("cuDeviceTotalMem", driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device))
    parts = []
    for attribute in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR):
        part = ctypes.c_int(0)
        status = driver.cuDeviceGetAttribute(ctypes.byref(part), attribute, device)
        _check("cuDeviceGetAttribute", status)
        parts.append(str(part.value))
    return Gpu(
        name=name.value.decode(errors="replace"),
        capability=".".join(parts),
        driver=f"{version.value // 1000}.{version.value % 1000 // 10}",
        memory=memory.value,
    )


def copy_on_device(target: int, source: int, size: int) -> None:
    """Copy bytes within the GPU's memory, and wait for the end.

    Args:
        target: Address.
        source: Address.
        size: Bytes.

    Raises:
        EngineError: The driver call fails.
    """
    with _context() as driver:
        status = driver.cuMemcpyDtoDAsync_v2(
            ctypes.c_uint64(target), ctypes.c_uint64(source), ctypes.c_size_t(size), None
        )
        _check("cuMemcpyDtoDAsync", status)
        _check("cuStreamSynchronize", driver.cuStreamSynchronize(None))


def zero_on_device(target: int, size: int) -> None:
    """Set bytes of the GPU's memory to zero, and wait for the end.

    Args:
        target: Address.
        size: Bytes.

    Raises:
        EngineError: The driver call fails.
    """
    with _context() as driver:
        status = driver.cuMemsetD8Async(
            ctypes.c_uint64(target), ctypes.c_ubyte(0), ctypes.c_size_t(size), None
        )
        _check("cuMemsetD8Async", status)
        _check("cuStreamSynchronize", driver.cuStreamSynchronize(None))


def _driver() -> Any:
    obstacle = driver_obstacle()
    if obstacle is not None:
        raise EngineError(obstacle)
    return ctypes.CDLL(_LIBRARY)


@functools.cache
def _primary_context() -> tuple[Any, ctypes.c_void_p]:
    """The context that the CUDA runtime, and so every library above it, uses."""
    driver, device, context = _driver(), ctypes.c_int(0), ctypes.c_void_p()
    _check("cuDeviceGet", driver.cuDeviceGet(ctypes.byref(device), 0))
    status = driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)
    _check("cuDevicePrimaryCtxRetain", status)
    return driver, context


@contextmanager
def _context() -> Iterator[Any]:
    """Make the first GPU's context current; the caller may be using another GPU in this thread.

    Within it, only the default stream is waited for. Waiting for the whole context is an error
    while another thread captures a graph.
    """
    driver, context = _primary_context()
    _check("cuCtxPushCurrent", driver.cuCtxPushCurrent_v2(context))
    try:
        yield driver
    finally:
        driver.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))


def _check(function: str, status: int) -> None:
    if not status:
        return
    sentence = ctypes.c_char_p()
    with contextlib.suppress(Exception):
        ctypes.CDLL(_LIBRARY).cuGetErrorString(status, ctypes.byref(sentence))
    reason = sentence.value.decode(errors="replace") if sentence.value else f"error {status}"
    raise EngineError(
        f"{function} failed in the NVIDIA driver: {reason}; run nvidia-smi for details"
    )

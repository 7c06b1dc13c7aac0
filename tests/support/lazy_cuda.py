"""A CUDA device in the processor's memory, as unfriendly as the real one may be.

- Memory is handed out full of NaN (as integers, -1), and filled with it again when it is freed.
- A stream runs nothing until somebody waits for it, and never in the order of another stream.
- Whatever uses memory that is not allocated, frees twice or waits within a capture is a fault, and
  :attr:`LazyCuda.faults` lists it.
- :meth:`LazyCuda.lose` makes every later call fail, as after an error of the device.

It stands in for cuda-python's runtime bindings. :class:`LazyTensorrt` stands in for TensorRT on it:
its engines are ONNX graphs, and ONNX Runtime computes them in the device's memory.
"""

# ruff: noqa: N802, N815  (the names are NVIDIA's)
from __future__ import annotations

import ctypes
import enum
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest

from rillet.runtime import Bundle
from rillet.runtime.engines.cache import cache_folder
from rillet.runtime.engines.cuda import driver as cuda_driver
from rillet.runtime.engines.tensorrt.api import installed_tensorrt
from rillet.runtime.engines.tensorrt.records import key_for, save_engine

__all__ = ["LazyCuda", "LazyTensorrt", "build_stub_driver", "install", "save_engines"]

POISON = 0xFF


class Error(enum.IntEnum):
    """The statuses that it returns."""

    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorInsufficientDriver = 35
    cudaErrorLaunchFailure = 719
    cudaErrorStreamCaptureUnsupported = 900


class Kind(enum.IntEnum):
    """Ways to copy."""

    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2
    cudaMemcpyDeviceToDevice = 3


class Mode(enum.IntEnum):
    """Modes of capturing."""

    cudaStreamCaptureModeThreadLocal = 1


Work = Callable[[], None]
Status = tuple[Any, ...]


class LazyCuda(ModuleType):
    """Stands in for ``cuda.bindings.runtime``.

    Attributes:
        faults: What a checker of a real device would report.
        refuse_capture: Whether graphs refuse to be captured.
        launches: Graphs launched.
        captures: Graphs captured.
    """

    cudaError_t, cudaMemcpyKind, cudaStreamCaptureMode = Error, Kind, Mode
    cudaStreamNonBlocking = 1

    def __init__(self) -> None:
        super().__init__("cuda.bindings.runtime")
        self.faults: list[str] = []
        self.refuse_capture = False
        self.launches = self.captures = 0
        self.memory: dict[int, npt.NDArray[np.uint8]] = {}
        self.streams: dict[int, list[Work]] = {}
        self.graphs: dict[int, list[Work]] = {}
        self._freed: list[npt.NDArray[np.uint8]] = []  # kept, so that no address is used twice
        self._capturing: dict[int, list[Work]] = {}
        self._handles = itertools.count(1)
        self._lost = False

    def lose(self) -> None:
        """Let every later call fail."""
        self._lost = True

    def queue(self, stream: int, work: Work) -> None:
        """Queue work, or record it if the stream is being captured."""
        self._capturing.get(stream, self.streams[stream]).append(work)

    def is_capturing(self, stream: int) -> bool:
        """Whether the stream is being captured."""
        return stream in self._capturing

    def view(self, address: int, size: int, what: str) -> None:
        """Note a fault unless these bytes are in one allocation."""
        for start, block in self.memory.items():
            if start <= address and address + size <= start + len(block):
                return
        self.faults.append(f"{what} {size} bytes that are not allocated")

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        is_call = name.startswith("cuda") and callable(value) and not isinstance(value, type)
        if is_call and self._lost and name != "cudaGetErrorString":
            return lambda *arguments: (Error.cudaErrorLaunchFailure, None)
        return value

    def cudaGetErrorString(self, status: Error) -> Status:
        return Error.cudaSuccess, status.name.encode()

    def cudaGetDeviceCount(self) -> Status:
        return Error.cudaSuccess, 1

    def cudaMalloc(self, size: int) -> Status:
        block = np.full(size, POISON, np.uint8)
        self.memory[block.ctypes.data] = block
        return Error.cudaSuccess, block.ctypes.data

    def cudaHostAlloc(self, size: int, flags: int) -> Status:
        return self.cudaMalloc(size)

    def cudaFree(self, address: int) -> Status:
        for stream in list(self.streams):  # the real one waits for the device as well
            self._run(stream)
        block = self.memory.pop(address, None)
        if block is None:
            self.faults.append("memory is freed that is not allocated")
            return (Error.cudaErrorInvalidValue,)
        block[:] = POISON
        self._freed.append(block)
        return (Error.cudaSuccess,)

    cudaFreeHost = cudaFree

    def cudaStreamCreateWithFlags(self, flags: int) -> Status:
        handle = next(self._handles)
        self.streams[handle] = []
        return Error.cudaSuccess, handle

    def cudaStreamDestroy(self, stream: int) -> Status:
        self._run(stream)
        del self.streams[stream]
        return (Error.cudaSuccess,)

    def cudaStreamSynchronize(self, stream: int) -> Status:
        if stream in self._capturing:
            self.faults.append("a stream is waited for while it is captured")
            return (Error.cudaErrorStreamCaptureUnsupported,)
        self._run(stream)
        return (Error.cudaSuccess,)

    def cudaMemcpyAsync(
        self, target: int, source: int, size: int, kind: Kind, stream: int
    ) -> Status:
        def copy() -> None:
            if kind != Kind.cudaMemcpyHostToDevice:
                self.view(source, size, "a copy reads")
            if kind != Kind.cudaMemcpyDeviceToHost:
                self.view(target, size, "a copy writes")
            ctypes.memmove(target, source, size)

        self.queue(stream, copy)
        return (Error.cudaSuccess,)

    def cudaMemsetAsync(self, target: int, value: int, size: int, stream: int) -> Status:
        def fill() -> None:
            self.view(target, size, "a fill writes")
            ctypes.memset(target, value, size)

        self.queue(stream, fill)
        return (Error.cudaSuccess,)

    def cudaStreamBeginCapture(self, stream: int, mode: Mode) -> Status:
        self._capturing[stream] = []
        return (Error.cudaSuccess,)

    def cudaStreamEndCapture(self, stream: int) -> Status:
        handle = next(self._handles)
        self.graphs[handle] = self._capturing.pop(stream)
        self.captures += 1
        return Error.cudaSuccess, handle

    def cudaGraphInstantiate(self, graph: int, flags: int) -> Status:
        handle = next(self._handles)
        self.graphs[handle] = self.graphs[graph]
        return Error.cudaSuccess, handle

    def cudaGraphDestroy(self, graph: int) -> Status:
        del self.graphs[graph]
        return (Error.cudaSuccess,)

    cudaGraphExecDestroy = cudaGraphDestroy

    def cudaGraphLaunch(self, graph: int, stream: int) -> Status:
        self.launches += 1
        self.streams[stream] += self.graphs[graph]
        return (Error.cudaSuccess,)

    def _run(self, stream: int) -> None:
        queue, self.streams[stream] = self.streams[stream], []
        for work in queue:
            work()


class Severity(enum.IntEnum):
    """How bad a message is."""

    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class Logger:
    """What TensorRT's loggers inherit from."""

    Severity = Severity


class LazyTensorrt(ModuleType):
    """Stands in for ``tensorrt``: it deserializes ONNX graphs, and runs them on a lazy device."""

    __version__ = "10.3.0"
    ILogger = Logger

    def __init__(self, cuda: LazyCuda) -> None:
        super().__init__("tensorrt")
        self.__spec__ = ModuleSpec("tensorrt", None)
        self._cuda = cuda

    def Runtime(self, logger: Any) -> _Runtime:
        return _Runtime(self._cuda)


class _Runtime:
    def __init__(self, cuda: LazyCuda) -> None:
        self._cuda = cuda

    def deserialize_cuda_engine(self, data: bytes) -> _Engine:
        return _Engine(self._cuda, data)


class _Engine:
    def __init__(self, cuda: LazyCuda, data: bytes) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.cuda = cuda
        self.session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        self.inputs = {entry.name: entry.type for entry in self.session.get_inputs()}
        self.outputs = [entry.name for entry in self.session.get_outputs()]
        self._names = [*self.inputs, *self.outputs]
        self.num_io_tensors = len(self._names)
        self.contexts = 0

    def get_tensor_name(self, index: int) -> str:
        return str(self._names[index])

    def create_execution_context(self) -> _Context:
        self.contexts += 1
        return _Context(self)


class _Context:
    def __init__(self, engine: _Engine) -> None:
        self._engine = engine
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._warm = False

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._shapes[name] = shape
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        cuda = self._engine.cuda
        if cuda.is_capturing(stream) and (cuda.refuse_capture or not self._warm):
            return False  # the first call allocates
        self._warm = True
        shapes, addresses = dict(self._shapes), dict(self._addresses)
        cuda.queue(stream, lambda: self._run(shapes, addresses))
        return True

    def _run(self, shapes: dict[str, tuple[int, ...]], addresses: dict[str, int]) -> None:
        engine, inputs = self._engine, {}
        for name, kind in engine.inputs.items():
            dtype = np.dtype({"tensor(int64)": "int64", "tensor(float)": "float32"}[kind])
            size = int(np.prod(shapes[name])) * dtype.itemsize
            engine.cuda.view(addresses[name], size, "a graph reads")
            data = ctypes.string_at(addresses[name], size)
            inputs[name] = np.frombuffer(data, dtype).reshape(shapes[name])
        for name, value in zip(engine.outputs, engine.session.run(None, inputs), strict=True):
            engine.cuda.view(addresses[name], value.nbytes, "a graph writes")
            ctypes.memmove(addresses[name], np.ascontiguousarray(value).ctypes.data, value.nbytes)


_DRIVER = r"""
#include <stdint.h>
#include <string.h>
#include <unistd.h>
static pid_t owner;
static int depth;
int cuInit(unsigned flags) {
  if (!owner) owner = getpid();
  return owner == getpid() ? 0 : 3;
}
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, "Lazy", size); return 0; }
int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
int cuDeviceTotalMem_v2(size_t *size, int device) { *size = 1 << 30; return 0; }
int cuDeviceGetAttribute(int *value, int what, int device) { *value = (what == 75) * 9; return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = &owner; return 0; }
int cuCtxPushCurrent_v2(void *context) { depth++; return 0; }
int cuCtxPopCurrent_v2(void **context) { depth--; return 0; }
int cuCtxSynchronize(void) { return 900; } /* as while another thread captures a graph */
int cuStreamSynchronize(void *stream) { return 0; }
int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t size, void *stream) {
  if (!depth || owner != getpid()) return 201;
  memcpy((void *)to, (void *)from, size);
  return 0;
}
int cuMemsetD8Async(uint64_t to, unsigned char value, size_t size, void *stream) {
  if (!depth || owner != getpid()) return 201;
  memset((void *)to, value, size);
  return 0;
}
int cuGetErrorString(int status, const char **text) { *text = "an error of the stub"; return 0; }
int left_behind(void) { return depth; }
"""


def build_stub_driver(folder: Path) -> Path:
    """Compile a driver in the processor's memory: one GPU, and no use of it after a fork."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("there is no C compiler to make a stub driver with")
    source, library = folder / "driver.c", folder / "libcuda.so.1"
    source.write_text(_DRIVER)
    command = [compiler, "-shared", "-fPIC", "-o", str(library), str(source)]
    subprocess.run(command, check=True)
    return library


def install(driver: Path, patch: pytest.MonkeyPatch) -> LazyCuda:
    """Let rillet find the stub driver, a lazy device and a TensorRT on it."""
    cuda = LazyCuda()
    patch.setattr(cuda_driver, "_LIBRARY", os.fspath(driver))
    bindings = ModuleType("cuda.bindings")
    patch.setattr(bindings, "runtime", cuda, raising=False)
    patch.setitem(sys.modules, "cuda", ModuleType("cuda"))
    patch.setitem(sys.modules, "cuda.bindings", bindings)
    patch.setitem(sys.modules, "cuda.bindings.runtime", cuda)
    patch.setitem(sys.modules, "tensorrt", LazyTensorrt(cuda))
    return cuda


def save_engines(bundle: Bundle, batches: tuple[int, ...]) -> None:
    """Save the bundle's graphs as the engines of the TensorRT that is installed."""
    api, gpu = installed_tensorrt("tensorrt"), cuda_driver.find_gpu()
    for graph in ("decode", "prefill"):
        lengths = (1, 64, 256) if graph == "prefill" else (1, 1, 1)
        key = key_for(bundle, graph, api, gpu, batches=batches, lengths=lengths)
        save_engine(cache_folder(bundle), bundle.graph(graph).read_bytes(), key, 1.0)

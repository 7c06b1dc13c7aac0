"""A thin layer over cuda-python: memory, copies, streams and captured graphs."""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import EngineError

__all__ = ["Cuda", "CudaBuffer", "CudaGraph", "CudaStream", "ExchangeBuffer"]


class Cuda:
    """cuda-python's runtime bindings, with status codes raised as errors.

    Raises:
        EngineError: They are not installed, or do not fit the driver.
    """

    def __init__(self) -> None:
        try:
            from cuda.bindings import runtime
        except ImportError as error:
            raise EngineError(
                f"cuda-python is not installed ({error}); install it: pip install "
                "'rillet[tensorrt]'"
            ) from error
        self._runtime = runtime
        self.call("cudaGetDeviceCount")

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a function of the CUDA runtime, and return its result without the status.

        Raises:
            EngineError: The call failed.
        """
        try:
            status, *values = getattr(self._runtime, name)(*arguments)
        except RuntimeError as error:
            raise EngineError(f"{name} failed: {error}; run nvidia-smi for details") from error
        if status == self._runtime.cudaError_t.cudaSuccess:
            return values[0] if values else None
        reason = self._runtime.cudaGetErrorString(status)[1].decode(errors="replace")
        if status == self._runtime.cudaError_t.cudaErrorInsufficientDriver:
            reason += (
                "; cuda-python is newer than the driver: install a version that fits, such as "
                "pip install 'cuda-python<13' for CUDA 12"
            )
        raise EngineError(f"{name} failed: {reason}")

    def constant(self, kind: str, name: str) -> Any:
        """Look up a value of one of the bindings' enumerations."""
        return getattr(getattr(self._runtime, kind), name)

    @property
    def non_blocking(self) -> int:
        """The flag of a stream that does not wait for other streams."""
        return int(self._runtime.cudaStreamNonBlocking)


class CudaStream:
    """A queue of work on the GPU.

    Args:
        cuda: The bindings.
    """

    def __init__(self, cuda: Cuda) -> None:
        self.cuda = cuda
        self.handle = cuda.call("cudaStreamCreateWithFlags", cuda.non_blocking)
        _free_with(self, cuda, "cudaStreamDestroy", self.handle)

    def __int__(self) -> int:
        return int(self.handle)

    def wait(self) -> None:
        """Wait for everything in the queue.

        Raises:
            EngineError: Something in it failed.
        """
        self.cuda.call("cudaStreamSynchronize", self.handle)

    def copy(self, target: int, source: int, size: int, kind: str) -> None:
        """Queue a copy.

        Args:
            target: Address.
            source: Address.
            size: Bytes.
            kind: ``HostToDevice``, ``DeviceToHost`` or ``DeviceToDevice``.
        """
        way = self.cuda.constant("cudaMemcpyKind", f"cudaMemcpy{kind}")
        self.cuda.call("cudaMemcpyAsync", target, source, size, way, self.handle)

    def zero(self, target: int, size: int) -> None:
        """Queue setting bytes to zero."""
        self.cuda.call("cudaMemsetAsync", target, 0, size, self.handle)

    @contextmanager
    def capture(self) -> Iterator[list[CudaGraph]]:
        """Record what is queued instead of running it.

        Yields:
            An empty list; the graph is in it after the block.
        """
        mode = self.cuda.constant("cudaStreamCaptureMode", "cudaStreamCaptureModeThreadLocal")
        self.cuda.call("cudaStreamBeginCapture", self.handle, mode)
        graphs: list[CudaGraph] = []
        try:
            yield graphs
        except BaseException:
            # End the capture even if the block failed, or the stream stays unusable.
            with suppress(EngineError):
                self.cuda.call("cudaGraphDestroy", self._end_capture())
            raise
        graphs.append(CudaGraph(self, self._end_capture()))

    def _end_capture(self) -> Any:
        return self.cuda.call("cudaStreamEndCapture", self.handle)


class CudaGraph:
    """Captured work that is queued as one.

    Args:
        stream: The stream that it was captured from and is launched on.
        graph: The captured graph.
    """

    def __init__(self, stream: CudaStream, graph: Any) -> None:
        self._stream = stream
        cuda = stream.cuda
        try:
            self._executable = cuda.call("cudaGraphInstantiate", graph, 0)
        finally:
            cuda.call("cudaGraphDestroy", graph)
        _free_with(self, cuda, "cudaGraphExecDestroy", self._executable)

    def launch(self) -> None:
        """Queue the whole graph."""
        self._stream.cuda.call("cudaGraphLaunch", self._executable, self._stream.handle)


class CudaBuffer:
    """A tensor in the GPU's memory, initially zeros.

    Args:
        stream: The stream that its copies are queued on.
        shape: Rows first.
        dtype: numpy's name of the element type.
    """

    def __init__(self, stream: CudaStream, shape: tuple[int, ...], dtype: str) -> None:
        self._stream, self._shape, self._dtype = stream, shape, np.dtype(dtype)
        self._row = int(np.prod(shape[1:], dtype=np.int64)) * self._dtype.itemsize
        self.size = shape[0] * self._row
        self.address = int(stream.cuda.call("cudaMalloc", max(self.size, 1)))
        _free_with(self, stream.cuda, "cudaFree", self.address)
        stream.zero(self.address, self.size)
        stream.wait()

    def read(self) -> npt.NDArray[Any]:
        """Copy all rows to the host."""
        values = np.empty(self._shape, self._dtype)
        self._stream.copy(values.ctypes.data, self.address, self.size, "DeviceToHost")
        self._stream.wait()
        return values

    def write(self, values: npt.NDArray[Any]) -> None:
        """Replace all rows."""
        whole = np.ascontiguousarray(values, self._dtype)
        self._stream.copy(self.address, whole.ctypes.data, self.size, "HostToDevice")
        self._stream.wait()

    def copy_rows(self, row: int, source: CudaBuffer, source_row: int, rows: int) -> None:
        """Replace rows by rows of another buffer; nothing leaves the device.

        Every call of an engine waits for its stream, so the source has been written by now.
        """
        target = self.address + row * self._row
        origin = source.address + source_row * self._row
        if rows and target != origin:
            self._stream.copy(target, origin, rows * self._row, "DeviceToDevice")
            self._stream.wait()

    def zero_rows(self, row: int, rows: int) -> None:
        """Set rows to zero."""
        self._stream.zero(self.address + row * self._row, rows * self._row)
        self._stream.wait()


class ExchangeBuffer:
    """A small tensor that is copied at each step: pinned in the host's memory, and on the GPU.

    The copy is part of the step: a captured graph contains it, and reads the host's memory again
    at each launch.

    Args:
        stream: The stream that its copies are queued on.
        shape: Rows first.
        dtype: numpy's name of the element type.
    """

    def __init__(self, stream: CudaStream, shape: tuple[int, ...], dtype: str) -> None:
        self._stream = stream
        self._device = CudaBuffer(stream, shape, dtype)
        self.address = self._device.address
        pinned = stream.cuda.call("cudaHostAlloc", max(self._device.size, 1), 0)
        self._pinned = int(pinned)
        _free_with(self, stream.cuda, "cudaFreeHost", self._pinned)
        memory = (ctypes.c_ubyte * self._device.size).from_address(self._pinned)
        self._values: npt.NDArray[Any] = np.frombuffer(memoryview(memory), dtype).reshape(shape)
        self._values[...] = 0

    def read(self) -> npt.NDArray[Any]:
        """Copy what the last step wrote."""
        return np.array(self._values)

    def write(self, values: npt.NDArray[Any]) -> None:
        """Set what the next step reads."""
        self._values[...] = values

    def send(self) -> None:
        """Queue the copy to the GPU."""
        self._stream.copy(self.address, self._pinned, self._device.size, "HostToDevice")

    def fetch(self) -> None:
        """Queue the copy from the GPU."""
        self._stream.copy(self._pinned, self.address, self._device.size, "DeviceToHost")


def _free_with(owner: object, cuda: Cuda, name: str, handle: Any) -> None:
    """Free a handle with its owner.

    Not at exit, when the driver may be gone already, and not in a forked process, which has copies
    of the handles but not the device.
    """
    process = os.getpid()

    def free(call: Callable[..., Any] = cuda.call) -> None:
        if os.getpid() == process:
            with suppress(EngineError):  # after a device error nothing can be freed
                call(name, handle)

    weakref.finalize(owner, free).atexit = False

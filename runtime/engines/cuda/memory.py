"""A thin layer over cuda-python: memory, copies, streams and captured graphs."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import EngineError

__all__ = ["Cuda", "CudaBuffer", "CudaGraph", "CudaStream", "ExchangeBuffer"]


class Cuda:
    """cuda-python's runtime bindings, with its status codes as errors.

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
        """Call a function of the CUDA runtime; what it gives, without its status.

        Raises:
            EngineError: It failed.
        """
        try:
            status, *values = getattr(self._runtime, name)(*arguments)
        except RuntimeError as error:
            raise EngineError(f"{name} failed: {error}; see what nvidia-smi says") from error
        if status == self._runtime.cudaError_t.cudaSuccess:
            return values[0] if values else None
        what = self._runtime.cudaGetErrorString(status)[1].decode(errors="replace")
        if status == self._runtime.cudaError_t.cudaErrorInsufficientDriver:
            what += (
                "; cuda-python is newer than the driver: install the line that fits it, such as "
                "pip install 'cuda-python<13' for CUDA 12"
            )
        raise EngineError(f"{name} failed: {what}")

    def constant(self, kind: str, name: str) -> Any:
        """A value of one of the bindings' enumerations."""
        return getattr(getattr(self._runtime, kind), name)

    @property
    def non_blocking(self) -> int:
        """The flag of a stream that does not wait for others."""
        return int(self._runtime.cudaStreamNonBlocking)


class CudaStream:
    """A queue of work on the GPU.

    Args:
        cuda: The bindings.
    """

    def __init__(self, cuda: Cuda) -> None:
        self.cuda = cuda
        self.handle = cuda.call("cudaStreamCreateWithFlags", cuda.non_blocking)
        _let_go(self, cuda, "cudaStreamDestroy", self.handle)

    def __int__(self) -> int:
        return int(self.handle)

    def wait(self) -> None:
        """Wait until everything in the queue is done.

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
        """Record what is queued instead of doing it.

        Yields:
            A list in which the graph is when the block has ended.
        """
        mode = self.cuda.constant("cudaStreamCaptureMode", "cudaStreamCaptureModeThreadLocal")
        self.cuda.call("cudaStreamBeginCapture", self.handle, mode)
        made: list[CudaGraph] = []
        graph = None
        try:
            yield made
        finally:
            # Ends the capture whether or not the block failed; the stream is unusable else.
            graph = self.cuda.call("cudaStreamEndCapture", self.handle)
        made.append(CudaGraph(self, graph))


class CudaGraph:
    """Work that is queued as one.

    Args:
        stream: The stream that it was captured from, and that it is launched on.
        graph: What was captured.
    """

    def __init__(self, stream: CudaStream, graph: Any) -> None:
        self._stream = stream
        cuda = stream.cuda
        self._executable = cuda.call("cudaGraphInstantiate", graph, 0)
        cuda.call("cudaGraphDestroy", graph)
        _let_go(self, cuda, "cudaGraphExecDestroy", self._executable)

    def launch(self) -> None:
        """Queue all of it."""
        self._stream.cuda.call("cudaGraphLaunch", self._executable, self._stream.handle)


class CudaBuffer:
    """A tensor in the GPU's memory, of zeros at first.

    Args:
        stream: Where its copies are queued.
        shape: Rows first.
        dtype: numpy's name of the element type.
    """

    def __init__(self, stream: CudaStream, shape: tuple[int, ...], dtype: str) -> None:
        self._stream, self._shape, self._dtype = stream, shape, np.dtype(dtype)
        self._row = int(np.prod(shape[1:], dtype=np.int64)) * self._dtype.itemsize
        self.size = shape[0] * self._row
        self.address = int(stream.cuda.call("cudaMalloc", max(self.size, 1)))
        _let_go(self, stream.cuda, "cudaFree", self.address)
        stream.zero(self.address, self.size)
        stream.wait()

    def read(self) -> npt.NDArray[Any]:
        """A copy of all rows."""
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
        """Copy rows of another buffer over this one's; neither leaves the device.

        Every call of an engine waits for its stream, so that what is copied has been written.
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
    """A small tensor that crosses at each step: pinned in the host's memory, and on the GPU.

    The copy is part of the step: a captured graph holds it, and reads the host's memory anew each
    time that it is launched.

    Args:
        stream: Where its copies are queued.
        shape: Rows first.
        dtype: numpy's name of the element type.
    """

    def __init__(self, stream: CudaStream, shape: tuple[int, ...], dtype: str) -> None:
        self._stream = stream
        self._device = CudaBuffer(stream, shape, dtype)
        self.address = self._device.address
        pinned = stream.cuda.call("cudaHostAlloc", max(self._device.size, 1), 0)
        self._pinned = int(pinned)
        _let_go(self, stream.cuda, "cudaFreeHost", self._pinned)
        memory = (ctypes.c_ubyte * self._device.size).from_address(self._pinned)
        self._values: npt.NDArray[Any] = np.frombuffer(memoryview(memory), dtype).reshape(shape)
        self._values[...] = 0

    def read(self) -> npt.NDArray[Any]:
        """A copy of what the last step gave."""
        return np.array(self._values)

    def write(self, values: npt.NDArray[Any]) -> None:
        """Set what the next step takes."""
        self._values[...] = values

    def send(self) -> None:
        """Queue the copy to the GPU."""
        self._stream.copy(self.address, self._pinned, self._device.size, "HostToDevice")

    def fetch(self) -> None:
        """Queue the copy from the GPU."""
        self._stream.copy(self._pinned, self.address, self._device.size, "DeviceToHost")


def _let_go(owner: object, cuda: Cuda, name: str, handle: Any) -> None:
    """Free something when its owner is gone; not at exit, when the driver may be gone itself."""

    def free(call: Callable[..., Any] = cuda.call) -> None:
        try:
            call(name, handle)
        except EngineError:
            return  # after a device error nothing can be freed any more

    weakref.finalize(owner, free).atexit = False

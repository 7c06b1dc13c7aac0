"""Which engine runs a bundle: the first that may be used, and on which a real step succeeds."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import numpy as np

from ..bundle import Bundle
from ..errors import EngineError
from .base import Engine
from .cache import engine_folders
from .cuda.driver import driver_obstacle
from .ort.providers import candidates

__all__ = ["open_engine"]


def open_engine(
    bundle: Bundle,
    provider: str = "auto",
    threads: int = 1,
    allow_fallback: bool = False,
) -> Engine[Any]:
    """Open the engine that runs a bundle's graphs.

    ``tensorrt`` is TensorRT itself where ``rillet engine build`` has built an engine of the
    bundle, and ONNX Runtime's TensorRT provider where it has not. ``auto`` tries, in this order,
    TensorRT where an engine was built, CUDA where the installed ONNX Runtime has it, the CPU.

    Args:
        bundle: The bundle.
        provider: ``cpu``, ``cuda``, ``tensorrt``, or ``auto`` for the best that works.
        threads: Threads that one call may use.
        allow_fallback: Whether the CPU will do where the provider cannot run, or fails in the
            middle of a stream.

    Returns:
        An engine that has taken a step.

    Raises:
        EngineError: There is no such provider, or none that may be used can run here.
    """
    failures = []
    names = _names(bundle, provider, allow_fallback)
    for place, name in enumerate(names):
        try:
            engine = _engine(bundle, name, threads)
            engine.step(np.zeros(1, np.int64), engine.zero_state())
        except EngineError as error:
            failures.append(f"provider {name!r} cannot run here: {error}")
            continue
        if failures:
            warnings.warn(f"{failures[0]}; using {name!r}", stacklevel=3)
        return _with_fallback(engine, bundle, names[place + 1 :], threads, allow_fallback)
    raise EngineError("; ".join(failures))


def _names(bundle: Bundle, provider: str, allow_fallback: bool) -> list[str]:
    """The providers to try, best first."""
    built = provider == "auto" and _built(bundle) and driver_obstacle() is None
    try:
        names = candidates(provider, allow_fallback)
    except EngineError:
        if not built:
            raise
        names = []  # TensorRT alone is installed, as it may be on a Jetson
    return ["tensorrt", *names] if built else names


def _engine(bundle: Bundle, provider: str, threads: int) -> Engine[Any]:
    if provider == "cpu":
        from .ort.host_engine import OnnxEngine

        return OnnxEngine(bundle, provider, threads)
    if provider == "tensorrt" and _built(bundle):
        from .tensorrt.engine import TensorrtEngine

        return TensorrtEngine(bundle)
    try:
        from .ort.device_engine import OnnxDeviceEngine

        engine = OnnxDeviceEngine(bundle, provider, threads)
        engine.zero_state()
    except EngineError as error:
        if provider != "tensorrt":
            raise
        raise EngineError(
            f"{error}. TensorRT without onnxruntime needs an engine that was built on this "
            f"machine: rillet engine build {bundle.path}"
        ) from error
    return engine


def _with_fallback(
    engine: Engine[Any], bundle: Bundle, names: list[str], threads: int, allow_fallback: bool
) -> Engine[Any]:
    """An engine that goes over to the others when it fails in the middle of a stream."""
    if not (names and allow_fallback):
        return engine
    from .fallback import FallbackEngine

    others = [(name, functools.partial(_engine, bundle, name, threads)) for name in names]
    return FallbackEngine(engine, others)


def _built(bundle: Bundle) -> bool:
    """Whether engines were built of a bundle's decoding graph, for this machine or another."""
    return any(any(folder.glob("decode-*.json")) for folder in engine_folders(bundle))

"""Choose the engine that runs a bundle: the first allowed one on which a real step succeeds."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable

import numpy as np

from ..bundle import WEIGHTS_FILE, Bundle
from ..errors import EngineError
from .base import PROVIDERS, Engine, Provider, ProviderChoice
from .cache import engine_files
from .cuda.driver import driver_obstacle

__all__ = ["open_engine", "processor_engines"]


def open_engine(
    bundle: Bundle,
    provider: ProviderChoice = "auto",
    threads: int = 1,
    allow_fallback: bool = False,
    check: Callable[[Engine], object] | None = None,
) -> Engine:
    """Open the engine that runs a bundle's graphs.

    ``tensorrt`` runs what ``rillet engine build`` has built from the bundle. ``auto`` tries, in
    this order, TensorRT if an engine was built, CUDA if the installed ONNX Runtime has it, the
    native engine, and ONNX Runtime on the CPU.

    Args:
        bundle: The bundle.
        provider: ``native``, ``cpu``, ``cuda``, ``tensorrt``, or ``auto`` for the best
            one that works.
        threads: Threads that one call may use.
        allow_fallback: Run on the CPU if the provider cannot run, or fails in the middle of a
            stream.
        check: Raises an :class:`EngineError` about an engine that must not be used.

    Returns:
        An engine that has taken a step.

    Raises:
        EngineError: There is no such provider, or none that may be used can run here.
    """
    failures = []
    names = _candidates(bundle, provider, allow_fallback)
    for place, name in enumerate(names):
        try:
            engine = _OPENERS[name](bundle, threads)
            engine.step(np.zeros(1, np.int64), engine.zero_state())
            if check is not None:
                check(engine)
        except EngineError as error:
            failures.append(f"provider {name!r} cannot run here: {error}")
            continue
        if failures:
            warnings.warn(f"{failures[0]}; using {name!r}", stacklevel=3)
        return _with_fallback(engine, bundle, names[place + 1 :], threads, allow_fallback)
    raise EngineError("; ".join(failures))


def _candidates(bundle: Bundle, provider: ProviderChoice, allow_fallback: bool) -> list[Provider]:
    """The providers to try, best first.

    Raises:
        EngineError: There is no such provider.
    """
    if provider == "auto":
        return _automatic(bundle)
    if provider not in PROVIDERS:
        raise EngineError(
            f"provider {provider!r} is unknown; use {', '.join(map(repr, PROVIDERS))} or 'auto'"
        )
    on_cpu = processor_engines(bundle) if allow_fallback and provider != "cpu" else []
    return [provider, *(name for name in on_cpu if name != provider)]


def _automatic(bundle: Bundle) -> list[Provider]:
    """What ``auto`` tries; it builds nothing."""
    from .ort.providers import has_cuda

    names: list[Provider] = []
    if _is_built(bundle) and driver_obstacle() is None:
        names.append("tensorrt")
    try:
        names += ["cuda"] if bundle.has_graphs and has_cuda() else []
    except EngineError:
        # Without ONNX Runtime: a Jetson may have TensorRT alone, and any device the library.
        names += [name for name in processor_engines(bundle) if name != "cpu"]
        if not names:
            raise
        return names
    return names + processor_engines(bundle)


def processor_engines(bundle: Bundle) -> list[Provider]:
    """What runs a bundle on the processor, best first."""
    if not bundle.has_graphs:
        return ["native"]
    return ["native", "cpu"] if _has_native(bundle) else ["cpu"]


# The engines. Each is imported when it is opened: a machine has the libraries of one or two.


def _open_native(bundle: Bundle, threads: int) -> Engine:
    from .native.engine import NativeEngine

    return NativeEngine(bundle)


def _open_cpu(bundle: Bundle, threads: int) -> Engine:
    from .ort.host_engine import OnnxEngine

    return OnnxEngine(bundle, "cpu", threads)


def _open_cuda(bundle: Bundle, threads: int) -> Engine:
    from .ort.device_engine import OnnxDeviceEngine

    return OnnxDeviceEngine(bundle, "cuda", threads)


def _open_tensorrt(bundle: Bundle, threads: int) -> Engine:
    from .tensorrt.engine import TensorrtEngine

    return TensorrtEngine(bundle)


_OPENERS: dict[Provider, Callable[[Bundle, int], Engine]] = {
    "native": _open_native,
    "cpu": _open_cpu,
    "cuda": _open_cuda,
    "tensorrt": _open_tensorrt,
}


def _with_fallback(
    engine: Engine,
    bundle: Bundle,
    names: list[Provider],
    threads: int,
    allow_fallback: bool,
) -> Engine:
    """Let an engine that fails in the middle of a stream hand it over to the next."""
    if not (names and allow_fallback):
        return engine
    from .fallback import FallbackEngine

    others = [(name, functools.partial(_OPENERS[name], bundle, threads)) for name in names]
    return FallbackEngine(engine, others)


def _has_native(bundle: Bundle) -> bool:
    """Whether this installation has the native library, and a bundle what it runs."""
    from .native.library import library_path

    return WEIGHTS_FILE in bundle.hashes() and library_path() is not None


def _is_built(bundle: Bundle) -> bool:
    """Whether engines were built of a bundle's decoding graph, for this machine or another."""
    return bool(engine_files(bundle, "decode-*.json"))

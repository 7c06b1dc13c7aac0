"""Which engine runs a bundle: the first that may be used, and on which a real step succeeds."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from .bundle import Bundle
from .engine import Engine
from .errors import EngineError
from .providers import candidates

__all__ = ["open_engine"]


def open_engine(
    bundle: Bundle,
    provider: str = "auto",
    threads: int = 1,
    allow_fallback: bool = False,
) -> Engine[Any]:
    """Open the engine that runs a bundle's graphs.

    Args:
        bundle: The bundle.
        provider: ``cpu``, ``cuda``, ``tensorrt``, or ``auto`` for the best that works.
        threads: Threads that one call may use.
        allow_fallback: Whether the CPU will do where the provider cannot run.

    Returns:
        An engine that has taken a step.

    Raises:
        EngineError: There is no such provider, or none that may be used can run here.
    """
    failures = []
    for name in candidates(provider, allow_fallback):
        try:
            engine = _engine(bundle, name, threads)
            logits = engine.step(np.zeros(1, np.int64), engine.zero_state())
            if not np.isfinite(logits).all():
                raise EngineError("a step gives numbers that are not finite")
        except EngineError as error:
            failures.append(f"provider {name!r} cannot run here: {error}")
            continue
        if failures:
            warnings.warn(f"{failures[0]}; using {name!r}", stacklevel=3)
        return engine
    raise EngineError("; ".join(failures))


def _engine(bundle: Bundle, provider: str, threads: int) -> Engine[Any]:
    if provider == "cpu":
        from .onnx_engine import OnnxEngine

        return OnnxEngine(bundle, provider, threads)
    from .onnx_device_engine import OnnxDeviceEngine

    return OnnxDeviceEngine(bundle, provider, threads)

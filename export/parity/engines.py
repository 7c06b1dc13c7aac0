"""The engines that run a bundle on the exporting machine's processor."""

from __future__ import annotations

import contextlib

from ...runtime.bundle import Bundle
from ...runtime.engines.base import Engine
from ...runtime.engines.native.engine import NativeEngine
from ...runtime.engines.ort.host_engine import OnnxEngine
from ...runtime.errors import EngineError

__all__ = ["measuring_engine", "open_engines"]


def open_engines(bundle: Bundle) -> list[Engine]:
    """ONNX Runtime for the graphs, and the native engine where there is one.

    Raises:
        EngineError: The bundle has no graphs, and this installation has no native engine.
    """
    if not bundle.has_graphs:
        return [NativeEngine(bundle)]
    engines: list[Engine] = [measuring_engine(bundle)]
    # A bundle without weights, or an installation without the library, has no native engine.
    with contextlib.suppress(EngineError):
        engines.append(NativeEngine(bundle))
    return engines


def measuring_engine(bundle: Bundle) -> Engine:
    """What a bundle's loss is measured with: ONNX Runtime on one thread, if it has graphs."""
    return OnnxEngine(bundle, "cpu", 1) if bundle.has_graphs else NativeEngine(bundle)

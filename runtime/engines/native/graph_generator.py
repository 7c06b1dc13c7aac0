"""The generating graph for streams of the native engine."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from ...bundle import Bundle
from ..base import EngineState
from ..checks import own_state
from ..ort.generate_graph import GraphGenerator
from ..ort.host_engine import OnnxEngine
from .state import NativeState

__all__ = ["BorrowedGenerator"]


class BorrowedGenerator:
    """Has ONNX Runtime generate, on a copy of the state.

    Args:
        bundle: The bundle.

    Raises:
        BundleError: The bundle has no generating graph.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._engine = OnnxEngine(bundle)
        self._inner = GraphGenerator(self._engine)

    def generate(
        self,
        state: EngineState,
        logits: npt.NDArray[Any],
        uniforms: npt.NDArray[Any],
        *,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        end_token: int = -1,
        learn: float = 0.0,
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Draw tokens and read them; see :meth:`.TokenGenerator.generate`."""
        own = own_state(state, NativeState)
        copy = self._engine.zero_state(own.batch)
        copy.write(own.read())
        result = self._inner.generate(
            copy,
            logits,
            uniforms,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            end_token=end_token,
            learn=learn,
        )
        own.write(copy.read())
        return result

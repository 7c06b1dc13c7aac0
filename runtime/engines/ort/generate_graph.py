"""The generating graph: tokens are drawn and read back inside it."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from ...bundle import Bundle
from ...errors import BundleError, EngineError
from ..base import Drawing, EngineState
from ..checks import check_finite, own_state
from .host_state import OnnxState
from .providers import create_session
from .sessions import OnnxGraphs, check_contract

__all__ = ["GraphGenerator"]

_INPUTS = (
    "last_logits",
    "uniforms",
    "temperature",
    "top_k",
    "top_p",
    "end_token",
    "learn",
)


class GraphGenerator:
    """Runs a bundle's ``generate.onnx`` on the state of an engine's streams.

    Args:
        engine: The engine whose states are advanced.
        threads: Threads that one call may use.

    Raises:
        BundleError: The bundle has no generating graph.
    """

    def __init__(self, engine: OnnxGraphs, threads: int = 1) -> None:
        if not self.exists(engine.bundle):
            raise BundleError(
                f"{engine.bundle.path} has no generate graph; export the model again, or "
                "generate token by token"
            )
        self.engine, self._threads = engine, threads
        self._session: Any = None
        self._lock = threading.Lock()

    @staticmethod
    def exists(bundle: Bundle) -> bool:
        """Whether a bundle has a generating graph."""
        return "generate" in bundle.manifest["graphs"]

    @property
    def knows_min_p(self) -> bool:
        """Whether :meth:`generate` takes ``min_p``: never."""
        return False

    def generate(
        self,
        state: EngineState,
        logits: npt.NDArray[Any],
        uniforms: npt.NDArray[Any],
        how: Drawing,
        *,
        end_token: int = -1,
        learn: float = 0.0,
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Draw tokens and read them; see :meth:`.TokenGenerator.generate`."""
        assert how.min_p == 0, "the graph does not know min_p"
        state = own_state(state, OnnxState)
        state.learn[...] = learn
        feeds = {
            "last_logits": np.ascontiguousarray(logits, np.float32),
            "uniforms": np.ascontiguousarray(uniforms, np.float64),
            "temperature": np.asarray([how.temperature], np.float64),
            "top_k": np.asarray([min(how.top_k, logits.shape[-1])], np.int64),
            "top_p": np.asarray([how.top_p], np.float64),
            "end_token": np.asarray([end_token], np.int64),
            "learn": state.learn,
        }
        table = self.engine.state_table
        values = state.sides[state.side]
        feeds |= {row.past: values[row.name] for row in table}
        names = ["tokens", "logits", *(row.present for row in table)]
        try:
            tokens, last, *present = self._loaded().run(names, feeds)
        except Exception as error:  # onnxruntime's exceptions share no public base
            raise EngineError(
                f"onnxruntime failed while generating ({error}); the stream is where it was"
            ) from error
        check_finite(last)
        for row, value in zip(table, present, strict=True):
            values[row.name][...] = value
        return tokens, last[:, 0]

    def _loaded(self) -> Any:
        with self._lock:
            if self._session is None:
                self._session = self._load()
            return self._session

    def _load(self) -> Any:
        path = self.engine.bundle.checked_graph("generate")
        try:
            # It samples in double precision, in a loop: work for the processor on any machine.
            session = create_session(str(path), "cpu", self._threads)
        except Exception as error:  # onnxruntime's exceptions share no public base
            raise BundleError(f"onnxruntime cannot load {path}: {error}") from error
        check_contract(path, session, self.engine.state_table, _INPUTS, ("tokens", "logits"))
        return session

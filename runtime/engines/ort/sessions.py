"""A bundle's graphs on ONNX Runtime: each loaded when it is first needed."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from ...bundle import Bundle
from ...errors import BundleError, EngineError
from ...state_table import StateTensor, parse_state_table
from .providers import create_session, node_owner

try:
    import onnxruntime as ort
except ImportError as missing:  # pragma: no cover - the extra is not installed
    raise EngineError(
        "no inference engine is installed; install one with: pip install 'rillet[cpu]'"
    ) from missing

__all__ = ["OnnxGraphs", "check_contract", "run_bound"]


class OnnxGraphs:
    """What engines on ONNX Runtime have in common. Safe to share between threads.

    Args:
        bundle: The bundle.
        provider: ``cpu``, ``cuda`` or ``tensorrt``.
        threads: Threads that one call may use.
    """

    def __init__(self, bundle: Bundle, provider: str = "cpu", threads: int = 1) -> None:
        self.bundle = bundle
        self.state = bundle.state
        self.vocab_size = bundle.vocab_size
        self.last_logits = bundle.last_logits
        self.threads = threads
        self._named = provider
        self._sessions: dict[str, Any] = {}
        self._lock = threading.Lock()

    @property
    def provider(self) -> str:
        """The execution provider that owns the graphs' nodes.

        Raises:
            EngineError: The one that was named cannot run here.
        """
        return node_owner(self._session("decode"))

    @property
    def version(self) -> str:
        """The engine's name and version."""
        return f"onnxruntime {ort.__version__}"

    def close(self) -> None:
        """Let go of the graphs; a call after that loads them anew."""
        with self._lock:
            self._sessions.clear()

    def _session(self, graph: str) -> Any:
        with self._lock:
            if graph not in self._sessions:
                self._sessions[graph] = self._load(graph)
            return self._sessions[graph]

    def _load(self, graph: str) -> Any:
        return self._create(self.bundle.graph(graph), self._named)

    def _create(
        self, path: Path, provider: str, options: dict[str, dict[str, str]] | None = None
    ) -> Any:
        try:
            session = create_session(str(path), provider, self.threads, options)
        except EngineError:
            raise
        except Exception as error:  # onnxruntime's exceptions share no public base
            if provider != "cpu":
                raise EngineError(str(error)) from error
            raise BundleError(f"onnxruntime cannot load {path}: {error}") from error
        check_contract(path, session, self.state)
        return session


def run_bound(session: Any, binding: Any, options: Any = None) -> None:
    """Run a graph whose inputs and outputs are bound.

    Raises:
        EngineError: onnxruntime failed.
    """
    try:
        session.run_with_iobinding(binding, options)
    except Exception as error:  # onnxruntime's exceptions share no public base
        raise EngineError(
            f"onnxruntime failed in a step ({error}); the stream is where it was before it"
        ) from error


def check_contract(
    path: Path,
    session: Any,
    state: list[StateTensor],
    given: tuple[str, ...] = ("input_ids", "learn"),
    made: tuple[str, ...] = ("logits",),
) -> None:
    """Refuse a graph without the inputs and outputs that the bundle's state table promises.

    Args:
        path: The graph's file.
        session: The graph, loaded.
        state: The state table.
        given: Its inputs beside the state.
        made: Its outputs beside the state.

    Raises:
        BundleError: Something is missing, or there is more.
    """
    inputs = {entry.name for entry in session.get_inputs()}
    outputs = {entry.name for entry in session.get_outputs()}
    wanted_inputs = {*given, *(row.past for row in state)}
    wanted_outputs = {*made, *(row.present for row in state)}
    differing = sorted((inputs ^ wanted_inputs) | (outputs ^ wanted_outputs))
    if differing:
        raise BundleError(
            f"{path} does not fit the state table of its bundle: {', '.join(differing)} "
            "stand in one of them only; export the bundle again"
        )
    try:
        table = session.get_modelmeta().custom_metadata_map.get("rillet.state")
    except UnicodeDecodeError as error:
        raise BundleError(
            f"{path} has properties that are no text; export the bundle again"
        ) from error
    if table is not None and parse_state_table(table) != state:
        raise BundleError(f"{path} carries another state table than its bundle; export again")

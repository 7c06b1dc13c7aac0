"""A bundle's graphs on ONNX Runtime, each loaded on first use."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from ...bundle import Bundle
from ...errors import BundleError, EngineError
from ...state_table import StateTensor, parse_state_table
from ..base import Provider
from .providers import create_session, import_onnxruntime, node_owner

__all__ = ["OnnxGraphs", "check_contract", "run_bound"]


class OnnxGraphs:
    """What the engines on ONNX Runtime have in common. Threads may share it.

    Args:
        bundle: The bundle.
        provider: ``cpu`` or ``cuda``.
        threads: Threads that one call may use.
    """

    def __init__(self, bundle: Bundle, provider: Provider = "cpu", threads: int = 1) -> None:
        self.bundle = bundle
        self.state_table = bundle.state
        self.vocab_size = bundle.vocab_size
        self.last_logits = bundle.last_logits
        self.threads = threads
        self._requested: Provider = provider
        self._sessions: dict[str, Any] = {}
        self._lock = threading.Lock()

    @property
    def independent_rows(self) -> bool:
        """Whether a row of a batch gives what it gives alone; see :class:`.Engine`."""
        return self.bundle.independent_rows

    @property
    def provider(self) -> str:
        """The execution provider that owns the graphs' nodes.

        Raises:
            EngineError: The requested one cannot run here.
        """
        return node_owner(self._session("decode"))

    @property
    def version(self) -> str:
        """Name and version of the library that computes."""
        return f"onnxruntime {import_onnxruntime().__version__}"

    def close(self) -> None:
        """Release the graphs; the next call reloads them."""
        with self._lock:
            self._sessions.clear()

    def _session(self, graph: str) -> Any:
        with self._lock:
            if graph not in self._sessions:
                self._sessions[graph] = self._load(graph)
            return self._sessions[graph]

    def _load(self, graph: str) -> Any:
        return self._create(self.bundle.checked_graph(graph), self._requested)

    def _create(self, path: Path, provider: Provider, options: dict[str, str] | None = None) -> Any:
        try:
            session = create_session(str(path), provider, self.threads, options)
        except EngineError:
            raise
        except Exception as error:  # onnxruntime's exceptions share no public base
            if provider != "cpu":
                raise EngineError(str(error)) from error
            raise BundleError(f"onnxruntime cannot load {path}: {error}") from error
        check_contract(path, session, self.state_table)
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
    table: list[StateTensor],
    inputs: tuple[str, ...] = ("input_ids", "learn"),
    outputs: tuple[str, ...] = ("logits",),
) -> None:
    """Refuse a graph whose inputs and outputs are not those that the bundle promises.

    Args:
        path: The graph's file.
        session: The graph, loaded.
        table: The state table.
        inputs: The graph's inputs beside the state.
        outputs: Its outputs beside the state.

    Raises:
        BundleError: An input or output is missing or unknown.
    """
    actual_inputs = {entry.name for entry in session.get_inputs()}
    actual_outputs = {entry.name for entry in session.get_outputs()}
    differing = actual_inputs ^ {*inputs, *(row.past for row in table)}
    differing |= actual_outputs ^ {*outputs, *(row.present for row in table)}
    if differing:
        raise BundleError(
            f"{path} does not fit the state table of its bundle: {', '.join(sorted(differing))} "
            "appear in only one of them; export the bundle again"
        )
    try:
        own_table = session.get_modelmeta().custom_metadata_map.get("rillet.state")
    except UnicodeDecodeError as error:
        raise BundleError(
            f"the properties of {path} are not valid text; export the bundle again"
        ) from error
    if own_table is not None and parse_state_table(own_table) != table:
        raise BundleError(
            f"the state table in {path} differs from its bundle's; export the bundle again"
        )

"""A bundle's check of itself, with nothing but the engine: no PyTorch on the device."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import BundleError, ParityError
from .files import sha256_bytes
from .model import Model

__all__ = ["SELF_TOLERANCE", "GoldenReport", "verify_golden"]

SELF_TOLERANCE = {"fp32": 1e-3, "fp16": 1e-2, "int8": 1.0, "int4": 4.0}
"""Largest |difference| from PyTorch's record, by precision. Another processor rounds otherwise
than the one that the bundle was made on, so that this is wider than the exporter's gate. For int8
and int4 it leaves room above what a shipped model shows (static int8 0.39, int4 0.98, of a
logit): it finds damage, and what they cost is the held-out loss in their manifest."""


@dataclass(frozen=True)
class GoldenReport:
    """What an engine gave beside the golden record.

    Attributes:
        graph: ``prefill`` or ``decode``, whichever read the prompt.
        logits: Largest |difference| of a logit from PyTorch's in float64.
        state: Largest |difference| of a recorded value of each state tensor; 0 where the
            record is a hash, and it matches.
        pytorch: Largest |difference| of PyTorch's own float32 from its float64: what an engine
            cannot be blamed for.
        greedy: Number of tokens that greedy decoding had in common, from the first on.
    """

    graph: str
    logits: float
    state: dict[str, float]
    pytorch: float
    greedy: int


def verify_golden(model: Model) -> dict[str, GoldenReport]:
    """Repeat what PyTorch computed when the bundle was made.

    The prompt is read twice, by the prefill graph and step by step; both must give the
    recorded logits and state at each recorded step, and after both, greedy decoding the
    recorded tokens.

    Args:
        model: A loaded bundle.

    Returns:
        The figures of each graph.

    Raises:
        BundleError: The bundle has no golden record.
        ParityError: The engine gives something else; names the graph, the output and the step.
    """
    record = _Record(model)
    return {graph: _verify(model, record, graph) for graph in ("prefill", "decode")}


class _Record:
    """The golden record, checked as far as it is read."""

    def __init__(self, model: Model) -> None:
        manifest: Any = model.bundle.manifest
        try:
            golden = manifest["golden"]
            self.tolerance = SELF_TOLERANCE[str(manifest["precision"])]
            self.prompt = np.asarray([[int(token) for token in golden["prompt"]]], np.int64)
            self.greedy = [int(token) for token in golden["greedy"]]
            self.steps = [_Step(entry, model) for entry in golden["steps"]]
            tokens = np.concatenate([self.prompt[0], np.asarray(self.greedy, np.int64)])
            length = self.prompt.shape[1]
            sound = bool((tokens >= 0).all() and (tokens < model.vocab_size).all())
            order = [entry.step for entry in self.steps]
            sound &= bool(order) and order == sorted(set(order)) and order[0] >= 0
            sound &= bool(order) and order[-1] < length
        except (TypeError, KeyError, ValueError, AttributeError, IndexError, OverflowError):
            sound = False
        if not sound:
            raise BundleError(
                f"{model.bundle.path} has no golden record that can be read; export it again"
            )


class _Step:
    """What was recorded after one step of the prompt."""

    def __init__(self, entry: Any, model: Model) -> None:
        self.step = int(entry["step"])
        self.logits = [
            (int(token), float(wide), float(narrow))
            for token, (wide, narrow) in entry["logits"].items()
        ]
        self.state: dict[str, dict[str, Any]] = {}
        sizes = {row.name: math.prod(row.shape) for row in model.bundle.state}
        for name, size in sizes.items():
            saved = entry["state"][name]
            if "sha256" in saved:
                self.state[name] = {"sha256": str(saved["sha256"])}
                continue
            values = [(int(place), float(wide), float(narrow))
                      for place, wide, narrow in saved["values"]]  # fmt: skip
            if any(not 0 <= place < size for place, _, _ in values):
                raise ValueError
            self.state[name] = {"values": values}
        if any(not 0 <= token < model.vocab_size for token, _, _ in self.logits):
            raise ValueError


def _verify(model: Model, record: _Record, graph: str) -> GoldenReport:
    engine, tolerance = model.engine, record.tolerance
    state = engine.zero_state()
    worst, apart, pytorch = 0.0, dict.fromkeys((row.name for row in model.bundle.state), 0.0), 0.0
    start = 0
    logits: npt.NDArray[Any] = np.zeros(model.vocab_size, np.float32)
    for entry in record.steps:
        chunk = record.prompt[:, start : entry.step + 1]
        logits = _read(model, state, chunk, graph)
        start = entry.step + 1
        values = state.read()
        for name, saved in entry.state.items():
            delta = _state_difference(values[name], saved)
            if not delta <= tolerance:
                raise ParityError(_sentence(graph, f"state tensor {name}", entry.step, delta))
            apart[name] = max(apart[name], delta)
        for token, wide, narrow in entry.logits:
            delta = abs(float(logits[token]) - wide)
            if not delta <= tolerance:
                raise ParityError(_sentence(graph, f"logit {token}", entry.step, delta))
            worst, pytorch = max(worst, delta), max(pytorch, abs(wide - narrow))
    if start < record.prompt.shape[1]:
        logits = _read(model, state, record.prompt[:, start:], graph)
    for place, token in enumerate(record.greedy):
        # Where the two likeliest lie closer than the tolerance, either counts.
        if not logits.max() - logits[token] <= tolerance:
            raise ParityError(
                f"after the {graph} graph read the prompt, greedy decoding gives another "
                f"token than PyTorch at step {place + 1} of {len(record.greedy)}"
            )
        logits = engine.step(np.asarray([token]), state, 0.0)[0]
    return GoldenReport(graph, worst, apart, pytorch, len(record.greedy))


def _read(model: Model, state: Any, chunk: npt.NDArray[Any], graph: str) -> npt.NDArray[Any]:
    """Read tokens ``[1, T]`` with one graph; the logits ``[V]`` after the last."""
    if graph == "prefill":
        return np.asarray(model.engine.prefill(chunk, state)[0, -1])
    for token in chunk[0]:
        logits = model.engine.step(np.asarray([token]), state)[0]
    return np.asarray(logits)


def _state_difference(value: npt.NDArray[Any], saved: dict[str, Any]) -> float:
    """Largest |difference| of the recorded values; infinite where a hash does not match."""
    if "sha256" in saved:
        whole = np.ascontiguousarray(value[0]).astype("<i8").tobytes()
        return 0.0 if sha256_bytes(whole) == saved["sha256"] else math.inf
    flat = value[0].reshape(-1)
    return max((abs(float(flat[place]) - wide) for place, wide, _ in saved["values"]), default=0.0)


def _sentence(graph: str, what: str, step: int, delta: float) -> str:
    return (
        f"the {graph} graph gives another {what} than PyTorch's record at step {step}: it differs "
        f"by {delta:.1e}; the bundle was damaged or changed, or the engine computes it wrongly"
    )

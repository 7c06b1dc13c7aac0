"""The golden record: what PyTorch computed, so that a device can check itself without PyTorch.

The exporter writes it into the bundle's manifest. :func:`self_test` checks part of it whenever a
model is loaded; :func:`verify_golden` checks all of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from .bundle import Bundle
from .engines.base import EngineState
from .errors import BundleError, EngineError, ParityError
from .files import sha256_bytes
from .loaded import LoadedModel

__all__ = [
    "SELF_TOLERANCE",
    "GoldenRecord",
    "GoldenReport",
    "GoldenStep",
    "self_test",
    "verify_golden",
]

SELF_TOLERANCE = {"fp32": 1e-3, "fp16": 1e-2, "int8": 1.0, "int4": 4.0}
"""Largest |difference| allowed from PyTorch's record, by precision.

Processors round differently, so this is wider than the exporter's gate. For int8 and int4 it leaves
room above what the shipped models show (a logit differs by up to 0.39 in static int8 and 0.98 in
int4): it detects damage. What these precisions cost is the held-out loss in the manifest.
"""

_SELF_TEST_STEPS = 64


@dataclass(frozen=True)
class GoldenReport:
    """How far an engine's results are from the golden record.

    Attributes:
        graph: The graph that read the prompt, ``prefill`` or ``decode``.
        logits: Largest |difference| between a logit and PyTorch's float64 value.
        state: Largest |difference| of the recorded values of each state tensor; 0 where the record
            is a hash and it matches.
        pytorch: Largest |difference| between PyTorch's own float32 and float64 logits, for which
            no engine is to blame.
        greedy: Number of leading tokens of greedy decoding that agree.
    """

    graph: str
    logits: float
    state: dict[str, float]
    pytorch: float
    greedy: int


Values = list[tuple[int, float, float]]
"""Recorded values: an index, and PyTorch's value there in float64 and in float32."""


@dataclass(frozen=True)
class GoldenStep:
    """The record after one step of the prompt.

    Attributes:
        step: The step, from 0.
        logits: Recorded logits, by token.
        state: Recorded values of each float state tensor; the SHA-256 of each integer one.
    """

    step: int
    logits: Values
    state: dict[str, Values | str]

    @classmethod
    def parse(cls, entry: Any, vocab_size: int, sizes: dict[str, int]) -> GoldenStep:
        """Parse an entry of ``golden.steps``; raises if it is malformed."""
        logits = [(token, *pair) for token, pair in entry["logits"].items()]
        state = {name: _parse_state(entry["state"][name], size) for name, size in sizes.items()}
        return cls(int(entry["step"]), _parse_values(logits, vocab_size), state)


@dataclass(frozen=True)
class GoldenRecord:
    """A bundle's golden record.

    Attributes:
        tolerance: Largest |difference| allowed between an engine and PyTorch.
        prompt: Tokens of the prompt, ``[T]``.
        greedy: Tokens of PyTorch's greedy continuation.
        steps: The recorded steps, in order.
    """

    tolerance: float
    prompt: npt.NDArray[np.int64]
    greedy: list[int]
    steps: list[GoldenStep]

    @classmethod
    def of(cls, bundle: Bundle) -> GoldenRecord:
        """Parse and validate a bundle's record.

        Raises:
            BundleError: The bundle has no valid record.
        """
        try:
            return cls._parse(bundle)
        except (TypeError, KeyError, ValueError, AttributeError, IndexError, OverflowError):
            raise BundleError(
                f"{bundle.path} has no valid golden record; export the model again"
            ) from None

    @classmethod
    def _parse(cls, bundle: Bundle) -> GoldenRecord:
        manifest: Any = bundle.manifest
        golden = manifest["golden"]
        prompt = np.asarray([int(token) for token in golden["prompt"]], np.int64)
        greedy = [int(token) for token in golden["greedy"]]
        sizes = {row.name: math.prod(row.shape) for row in bundle.state}
        steps = [GoldenStep.parse(entry, bundle.vocab_size, sizes) for entry in golden["steps"]]
        order = [entry.step for entry in steps]
        if not order or order != sorted(set(order)) or order[0] < 0 or order[-1] >= prompt.size:
            raise ValueError
        if not all(0 <= token < bundle.vocab_size for token in (*prompt.tolist(), *greedy)):
            raise ValueError
        return cls(SELF_TOLERANCE[str(manifest["precision"])], prompt, greedy, steps)


def _parse_values(entries: Any, size: int) -> Values:
    values = [(int(index), float(wide), float(narrow)) for index, wide, narrow in entries]
    if not all(0 <= index < size for index, _, _ in values):
        raise ValueError
    return values


def _parse_state(entry: Any, size: int) -> Values | str:
    return str(entry["sha256"]) if "sha256" in entry else _parse_values(entry["values"], size)


def self_test(model: LoadedModel) -> float | None:
    """Read the start of the golden record's prompt step by step, and compare the logits.

    This detects an engine with wrong results, and a state that is not carried from step to step. It
    takes about sixty steps; :func:`verify_golden` checks everything.

    Args:
        model: A loaded model.

    Returns:
        The largest |difference| between a log-probability and PyTorch's; ``None`` if the bundle has
        no record to compare with.

    Raises:
        EngineError: The engine's results differ from PyTorch's.
    """
    try:
        record = GoldenRecord.of(model.bundle)
    except BundleError:
        return None
    expected = {entry.step: entry.logits for entry in record.steps if entry.step < _SELF_TEST_STEPS}
    if not expected:
        return None
    state, worst = model.start_state(), 0.0
    for step, token in enumerate(record.prompt[: max(expected) + 1]):
        logits = model.engine.step(token[None], state)[0]
        for number, value, _ in expected.get(step, []):
            difference = abs(float(logits[number]) - value)
            if not difference <= record.tolerance:
                raise EngineError(
                    f"{model.engine.provider} gives wrong results for {model.bundle.path}: after "
                    f"{step + 1} tokens a log-probability is off by {difference:.1e}, and at most "
                    f"{record.tolerance:.0e} is allowed; use another provider, or run "
                    "`rillet verify` for details"
                )
            worst = max(worst, difference)
    return worst


def verify_golden(model: LoadedModel) -> dict[str, GoldenReport]:
    """Repeat what PyTorch computed when the bundle was exported.

    The prompt is read twice: by the prefill graph, and step by step by the decode graph. Each time,
    the logits and the state must match at every recorded step, and greedy decoding must then give
    the recorded tokens.

    Args:
        model: A loaded model.

    Returns:
        A report for each graph.

    Raises:
        BundleError: The bundle has no valid golden record.
        ParityError: The engine's results differ; the message names the graph, the output and the
            step.
    """
    record = GoldenRecord.of(model.bundle)
    return {
        "prefill": _Check(model, record, "prefill").run(),
        "decode": _Check(model, record, "decode").run(),
    }


class _Check:
    """One pass over the record's prompt, with one graph."""

    def __init__(
        self, model: LoadedModel, record: GoldenRecord, graph: Literal["prefill", "decode"]
    ) -> None:
        self._engine, self._record, self._graph = model.engine, record, graph
        self._state: EngineState = model.start_state()
        self._state_differences = dict.fromkeys((row.name for row in model.bundle.state), 0.0)
        self._worst = self._pytorch = 0.0

    def run(self) -> GoldenReport:
        record, start = self._record, 0
        for entry in record.steps:
            logits = self._read(record.prompt[start : entry.step + 1])
            start = entry.step + 1
            self._compare_state(entry)
            self._compare_logits(entry, logits)
        if start < record.prompt.size:
            logits = self._read(record.prompt[start:])
        self._compare_greedy(logits)
        return GoldenReport(
            self._graph, self._worst, self._state_differences, self._pytorch, len(record.greedy)
        )

    def _read(self, tokens: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Read tokens ``[T]`` and return the logits ``[V]`` after the last."""
        logits: npt.NDArray[Any]
        if self._graph == "prefill":
            logits = self._engine.prefill(tokens[None], self._state)[0, -1]
            return logits
        for token in tokens:
            logits = self._engine.step(token[None], self._state)[0]
        return logits

    def _compare_state(self, entry: GoldenStep) -> None:
        values = self._state.read()
        for name, expected in entry.state.items():
            difference = _state_difference(values[name], expected)
            self._check(f"state tensor {name}", entry.step, difference)
            self._state_differences[name] = max(self._state_differences[name], difference)

    def _compare_logits(self, entry: GoldenStep, logits: npt.NDArray[Any]) -> None:
        for token, wide, narrow in entry.logits:
            difference = abs(float(logits[token]) - wide)
            self._check(f"logit {token}", entry.step, difference)
            self._worst = max(self._worst, difference)
            self._pytorch = max(self._pytorch, abs(wide - narrow))

    def _compare_greedy(self, logits: npt.NDArray[Any]) -> None:
        greedy = self._record.greedy
        for step, token in enumerate(greedy, start=1):
            # If the two likeliest tokens lie closer than the tolerance, either counts.
            if not logits.max() - logits[token] <= self._record.tolerance:
                raise ParityError(
                    f"after the {self._graph} graph read the prompt, greedy decoding differs from "
                    f"PyTorch's at step {step} of {len(greedy)}; the bundle was damaged or "
                    "changed, or the engine's results are wrong"
                )
            logits = self._engine.step(np.asarray([token]), self._state, 0.0)[0]

    def _check(self, output: str, step: int, difference: float) -> None:
        if not difference <= self._record.tolerance:
            raise ParityError(
                f"the {self._graph} graph's {output} at step {step} differs from PyTorch's record "
                f"by {difference:.1e}; the bundle was damaged or changed, or the engine's results "
                "are wrong"
            )


def _state_difference(value: npt.NDArray[Any], expected: Values | str) -> float:
    """Largest |difference| from the recorded values; infinite if a hash does not match."""
    if isinstance(expected, str):
        content = np.ascontiguousarray(value[0]).astype("<i8").tobytes()
        return 0.0 if sha256_bytes(content) == expected else math.inf
    flat = value[0].reshape(-1)
    return max((abs(float(flat[index]) - wide) for index, wide, _ in expected), default=0.0)

"""The golden record: what PyTorch computed, so that a device can check itself without PyTorch.

The exporter writes it into the bundle's manifest. :func:`self_test` looks at some of it whenever a
model is loaded, :func:`verify_golden` at all of it.
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
"""Largest |difference| from PyTorch's record, by precision. Processors round differently, so
this is wider than the exporter's gate. For int8 and int4 it leaves room above what a shipped
model shows (static int8 0.39, int4 0.98, of a logit): it finds damage; what these precisions cost
is the held-out loss in the manifest."""

_SELF_TEST_STEPS = 64


@dataclass(frozen=True)
class GoldenReport:
    """How far an engine is from the golden record.

    Attributes:
        graph: ``prefill`` or ``decode``, whichever read the prompt.
        logits: Largest |difference| of a logit from PyTorch's in float64.
        state: Largest |difference| of a recorded value of each state tensor; 0 where the
            record is a hash, and it matches.
        pytorch: Largest |difference| between PyTorch's own float32 and float64, which no engine
            can be blamed for.
        greedy: Number of tokens that greedy decoding had in common, from the first on.
    """

    graph: str
    logits: float
    state: dict[str, float]
    pytorch: float
    greedy: int


Values = list[tuple[int, float, float]]
"""Recorded values: an index, and PyTorch's number there in float64 and in float32."""


@dataclass(frozen=True)
class GoldenStep:
    """What was recorded after a step of the prompt.

    Attributes:
        step: The step, from 0.
        logits: Logits of the likeliest tokens.
        state: Values of each float state tensor, and the SHA-256 of each integer one.
    """

    step: int
    logits: Values
    state: dict[str, Values | str]

    @classmethod
    def parse(cls, entry: Any, vocab_size: int, sizes: dict[str, int]) -> GoldenStep:
        """Read one entry of ``golden.steps``; a malformed one raises."""
        logits = [(token, *pair) for token, pair in entry["logits"].items()]
        state = {name: _saved(entry["state"][name], size) for name, size in sizes.items()}
        return cls(int(entry["step"]), _values(logits, vocab_size), state)


@dataclass(frozen=True)
class GoldenRecord:
    """A bundle's golden record.

    Attributes:
        tolerance: Largest |difference| from PyTorch that an engine may show.
        prompt: Tokens of the prompt, ``[T]``.
        greedy: PyTorch's greedy continuation.
        steps: What was recorded, in order of the steps.
    """

    tolerance: float
    prompt: npt.NDArray[np.int64]
    greedy: list[int]
    steps: list[GoldenStep]

    @classmethod
    def of(cls, bundle: Bundle) -> GoldenRecord:
        """Read a record, and check all of it.

        Raises:
            BundleError: The bundle has no record that can be read.
        """
        try:
            return cls._parse(bundle)
        except (TypeError, KeyError, ValueError, AttributeError, IndexError, OverflowError):
            raise BundleError(
                f"{bundle.path} has no golden record that can be read; export it again"
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


def _values(entries: Any, size: int) -> Values:
    values = [(int(index), float(wide), float(narrow)) for index, wide, narrow in entries]
    if not all(0 <= index < size for index, _, _ in values):
        raise ValueError
    return values


def _saved(entry: Any, size: int) -> Values | str:
    return str(entry["sha256"]) if "sha256" in entry else _values(entry["values"], size)


def self_test(model: LoadedModel) -> float | None:
    """Read the golden record's prompt step by step, and compare the predictions on the way.

    This finds an engine that computes something else, and a state that is not carried from step
    to step. It takes some sixty steps; :func:`verify_golden` checks everything.

    Args:
        model: A loaded bundle.

    Returns:
        The largest |difference| of a log-probability from PyTorch's; ``None`` if the bundle has
        no record to compare with.

    Raises:
        EngineError: The engine computes something else.
    """
    try:
        record = GoldenRecord.of(model.bundle)
    except BundleError:
        return None
    expected = {entry.step: entry.logits for entry in record.steps if entry.step < _SELF_TEST_STEPS}
    if not expected:
        return None
    state, worst = model.engine.zero_state(), 0.0
    for step, token in enumerate(record.prompt[: max(expected) + 1]):
        logits = model.engine.step(token[None], state)[0]
        for number, value, _ in expected.get(step, []):
            difference = abs(float(logits[number]) - value)
            if not difference <= record.tolerance:
                raise EngineError(
                    f"{model.engine.provider} does not compute what {model.bundle.path} should: "
                    f"after {step + 1} tokens a log-probability is off by {difference:.1e}, and "
                    f"{record.tolerance:.0e} is allowed; use another provider, and see "
                    "`rillet verify`"
                )
            worst = max(worst, difference)
    return worst


def verify_golden(model: LoadedModel) -> dict[str, GoldenReport]:
    """Repeat what PyTorch computed when the bundle was made.

    The prompt is read twice, by the prefill graph and step by step. Both must give the recorded
    logits and state at each recorded step, and after both, greedy decoding must give the recorded
    tokens.

    Args:
        model: A loaded bundle.

    Returns:
        The figures of each graph.

    Raises:
        BundleError: The bundle has no golden record.
        ParityError: The engine computes something else; names the graph, the output and the step.
    """
    record = GoldenRecord.of(model.bundle)
    return {
        "prefill": _Check(model, record, "prefill").run(),
        "decode": _Check(model, record, "decode").run(),
    }


class _Check:
    """One reading of the record's prompt, by one graph."""

    def __init__(
        self, model: LoadedModel, record: GoldenRecord, graph: Literal["prefill", "decode"]
    ) -> None:
        self._engine, self._record, self._graph = model.engine, record, graph
        self._state: EngineState = model.engine.zero_state()
        self._apart = dict.fromkeys((row.name for row in model.bundle.state), 0.0)
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
            self._graph, self._worst, self._apart, self._pytorch, len(record.greedy)
        )

    def _read(self, tokens: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Read tokens ``[T]``; the logits ``[V]`` after the last."""
        logits: npt.NDArray[Any]
        if self._graph == "prefill":
            logits = self._engine.prefill(tokens[None], self._state)[0, -1]
            return logits
        for token in tokens:
            logits = self._engine.step(token[None], self._state)[0]
        return logits

    def _compare_state(self, entry: GoldenStep) -> None:
        values = self._state.read()
        for name, saved in entry.state.items():
            difference = _state_difference(values[name], saved)
            self._check(f"state tensor {name}", entry.step, difference)
            self._apart[name] = max(self._apart[name], difference)

    def _compare_logits(self, entry: GoldenStep, logits: npt.NDArray[Any]) -> None:
        for token, wide, narrow in entry.logits:
            difference = abs(float(logits[token]) - wide)
            self._check(f"logit {token}", entry.step, difference)
            self._worst = max(self._worst, difference)
            self._pytorch = max(self._pytorch, abs(wide - narrow))

    def _compare_greedy(self, logits: npt.NDArray[Any]) -> None:
        greedy = self._record.greedy
        for step, token in enumerate(greedy, start=1):
            # If the two likeliest lie closer than the tolerance, either counts.
            if not logits.max() - logits[token] <= self._record.tolerance:
                raise ParityError(
                    f"after the {self._graph} graph read the prompt, greedy decoding gives another "
                    f"token than PyTorch at step {step} of {len(greedy)}"
                )
            logits = self._engine.step(np.asarray([token]), self._state, 0.0)[0]

    def _check(self, output: str, step: int, difference: float) -> None:
        if not difference <= self._record.tolerance:
            raise ParityError(
                f"the {self._graph} graph gives another {output} than PyTorch's record at step "
                f"{step}: it differs by {difference:.1e}; the bundle was damaged or changed, or "
                "the engine computes it wrongly"
            )


def _state_difference(value: npt.NDArray[Any], saved: Values | str) -> float:
    """Largest |difference| of the recorded values; infinite if a hash does not match."""
    if isinstance(saved, str):
        content = np.ascontiguousarray(value[0]).astype("<i8").tobytes()
        return 0.0 if sha256_bytes(content) == saved else math.inf
    flat = value[0].reshape(-1)
    return max((abs(float(flat[index]) - wide) for index, wide, _ in saved), default=0.0)

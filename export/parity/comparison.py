"""Differences between one graph and PyTorch on the same tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Comparison", "Difference", "compared_graphs"]

_LEAST_OVERLAP = 0.98
_LEAST_COSINE = 0.9999
_PARTS = 10
_LONG = 100_000
_GROWTH = 2.0
"""On streams of at least ``_LONG`` tokens, the last error may be this many times the early one."""


def compared_graphs(provider: str) -> tuple[str, ...]:
    """The graphs that read the texts; of the native engine, which runs none, its prefill.

    Its steps give the bits of its prefill.
    """
    return ("prefill",) if provider == "native" else ("decode", "prefill")


@dataclass
class Difference:
    """Distance of one output from PyTorch's.

    Attributes:
        largest: Largest |difference|.
        step: The step of the stream at which it occurred, from 0.
        first_beyond: The first step beyond the tolerance; ``None`` if there is none.
        cosine: Smallest cosine between the two, over steps and rows.
        total: Sum of all |differences|.
        count: Number of values compared.
    """

    largest: float = 0.0
    step: int = 0
    first_beyond: int | None = None
    cosine: float = 1.0
    total: float = 0.0
    count: int = 0

    @property
    def mean(self) -> float:
        """Mean |difference|."""
        return self.total / self.count if self.count else 0.0

    def add(
        self,
        expected: npt.NDArray[Any],
        actual: npt.NDArray[Any],
        steps: npt.NDArray[Any],
        tolerance: float,
    ) -> npt.NDArray[np.float64]:
        """Add two arrays ``[B, len(steps), ...]``; return the largest difference of each step."""
        a, b = expected.astype(np.float64), actual.astype(np.float64)
        with np.errstate(invalid="ignore"):
            deltas = np.abs(a - b) if a.shape == b.shape else np.full(a.shape, np.inf)
        deltas = np.where(np.isfinite(deltas), deltas, np.inf)  # NaN is infinitely far off
        flat = (len(a), len(steps), -1)
        by_step: npt.NDArray[np.float64] = deltas.reshape(flat).max(axis=(0, 2))
        worst = int(by_step.argmax())
        if by_step[worst] > self.largest:
            self.largest, self.step = float(by_step[worst]), int(steps[worst])
        beyond = np.flatnonzero(by_step > tolerance)
        if beyond.size and self.first_beyond is None:
            self.first_beyond = int(steps[int(beyond[0])])
        self.total += float(deltas.sum())
        self.count += deltas.size
        if np.isfinite(deltas).all():
            self.cosine = min(self.cosine, _smallest_cosine(a.reshape(flat), b.reshape(flat)))
        else:
            self.cosine = -1.0
        return by_step

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON values, with two significant digits."""
        return {
            "max": _short(self.largest),
            "mean": _short(self.mean),
            "at_step": self.step,
            "cosine": round(self.cosine, 6),
        }


@dataclass
class Comparison:
    """One graph against PyTorch on one stream of tokens.

    Attributes:
        graph: ``decode``, ``prefill`` or ``generate``.
        text: Name of the tokens that were read.
        tokens: Number of tokens read, over all rows.
        greedy_differences: Steps at which the chosen tokens differ and are not a tie.
        first_greedy_difference: The first such step; ``None`` if there is none.
        overlap: Mean share of the ten likeliest tokens that both have.
        outputs: Distance of each output by name: the logits and each state tensor.
        parts: Largest |difference| of a logit in each tenth of the stream.
        provider: The execution provider that was compared.
        nats: The engine's summed negative log-probability of the tokens that came next.
        expected_nats: The same sum by PyTorch.
        predicted: Number of tokens in these sums.
    """

    graph: str
    text: str
    tokens: int = 0
    greedy_differences: int = 0
    first_greedy_difference: int | None = None
    overlap: float = 1.0
    outputs: dict[str, Difference] = field(default_factory=dict)
    parts: list[float] = field(default_factory=lambda: [0.0] * _PARTS)
    provider: str = "CPUExecutionProvider"
    nats: float = 0.0
    expected_nats: float = 0.0
    predicted: int = 0

    def add_logits(
        self,
        expected: npt.NDArray[Any],
        actual: npt.NDArray[Any],
        steps: npt.NDArray[Any],
        length: int,
        tolerance: float,
    ) -> None:
        """Compare logits ``[B, len(steps), V]`` after some steps of a stream of ``length``."""
        by_step = self.outputs.setdefault("logits", Difference()).add(
            expected, actual, steps, tolerance
        )
        for step, largest in zip(steps, by_step, strict=True):
            part = int(step) * len(self.parts) // length
            self.parts[part] = max(self.parts[part], float(largest))

    def add_state(
        self,
        expected: Mapping[str, npt.NDArray[Any]],
        actual: Mapping[str, npt.NDArray[Any]],
        step: int,
        tolerance: float,
    ) -> None:
        """Compare every state tensor after a step."""
        for name, value in expected.items():
            output = self.outputs.setdefault(name, Difference())
            other = np.asarray(actual[name])[:, None]
            output.add(value[:, None], other, np.asarray([step]), tolerance)

    @property
    def part(self) -> str:
        """What was compared: the graph, or ``native`` for the engine that runs none."""
        return "native" if self.provider == "native" else self.graph

    def add_choices(
        self,
        expected: npt.NDArray[Any],
        actual: npt.NDArray[Any],
        steps: npt.NDArray[Any],
        tolerance: float,
    ) -> None:
        """Count the steps whose likeliest tokens differ, unless PyTorch's logits tie."""
        chosen = np.take_along_axis(expected, actual.argmax(-1)[..., None], -1)[..., 0]
        differ = ~(expected.max(-1) - chosen <= tolerance)  # [B, len(steps)]
        self.add_greedy_differences(int(differ.sum()), int(steps[int(differ.any(0).argmax())]))

    def add_greedy_differences(self, count: int, first: int) -> None:
        """Count steps whose chosen tokens differ; the first of them is step ``first``."""
        self.greedy_differences += count
        if count and self.first_greedy_difference is None:
            self.first_greedy_difference = first

    def add_losses(
        self,
        expected: npt.NDArray[Any],
        actual: npt.NDArray[Any],
        steps: npt.NDArray[Any],
        tokens: npt.NDArray[Any],
    ) -> None:
        """Add the losses of predicting ``tokens [B, T]``; the last token has no successor."""
        steps = steps[steps + 1 < tokens.shape[1]]
        targets = tokens[:, steps + 1, None]
        self.nats += _loss(actual, targets)
        self.expected_nats += _loss(expected, targets)
        self.predicted += targets.size

    @property
    def loss_rise(self) -> float:
        """Nats per token by which the engine's loss exceeds PyTorch's."""
        return (self.nats - self.expected_nats) / self.predicted if self.predicted else 0.0

    @property
    def deltas(self) -> dict[str, float]:
        """Largest |difference| of each output, by name."""
        return {name: output.largest for name, output in self.outputs.items()}

    @property
    def cosine(self) -> float:
        """Smallest cosine between two logit vectors."""
        return self.outputs["logits"].cosine if "logits" in self.outputs else 1.0

    @property
    def growth(self) -> float:
        """Largest logit difference in the last tenth, relative to the first two tenths."""
        return self.parts[-1] / max(self.parts[0], self.parts[1], 1e-9)

    def failure(self, tolerance: float) -> str | None:
        """Why the comparison fails, in the order of the gate; ``None`` if it passes."""
        where = f"{self.graph} on {self.text}"
        source = self._source(tolerance)
        if self.greedy_differences:
            return (
                f"{where}: the chosen token differs in {self.greedy_differences} of "
                f"{self.tokens} steps, first at step {self.first_greedy_difference}{source}"
            )
        if not self.overlap >= _LEAST_OVERLAP:
            return f"{where}: the ten likeliest tokens overlap by only {self.overlap:.3f}{source}"
        if not self.cosine >= _LEAST_COSINE:
            return f"{where}: the cosine of the logits falls to {self.cosine:.6f}{source}"
        for name, output in self.outputs.items():
            if not output.largest <= tolerance:
                return (
                    f"{where}: {name} differs by {output.largest:.2e} at step {output.step}, "
                    f"and {tolerance:.0e} is allowed{source}"
                )
        if self.tokens >= _LONG and self.growth > _GROWTH:
            return (
                f"{where}: the logits' largest difference grows with the stream: "
                f"{self.parts[-1]:.1e} in the last tenth, {max(self.parts[:2]):.1e} early on"
            )
        return None

    def _source(self, tolerance: float) -> str:
        """Name the earliest state tensor in the data flow that exceeds the tolerance."""
        for name, output in self.outputs.items():
            if name != "logits" and not output.largest <= tolerance:
                return (
                    f"; the first state tensor that is off is {name}, by {output.largest:.2e} "
                    f"(seen at step {output.first_beyond})"
                )
        return ""

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON values, differences with two significant digits."""
        return {
            "graph": self.graph,
            "provider": self.provider,
            "text": self.text,
            "tokens": self.tokens,
            "greedy_differences": self.greedy_differences,
            "first_greedy_difference": self.first_greedy_difference,
            "top10_overlap": round(self.overlap, 4),
            "cosine": round(self.cosine, 6),
            "outputs": {name: output.to_dict() for name, output in self.outputs.items()},
            "logits_by_tenth": [_short(part) for part in self.parts],
        }


def _loss(logits: npt.NDArray[Any], targets: npt.NDArray[Any]) -> float:
    """Summed loss in nats of targets ``[B, S, 1]``, predicted by the first S logits."""
    predicted = np.take_along_axis(logits[:, : targets.shape[1]], targets, axis=2)
    return -float(predicted.sum(dtype=np.float64))


def _smallest_cosine(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    """Smallest cosine along the last axis; two zero vectors are equal."""
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    cosines = (a * b).sum(-1) / np.maximum(lengths, 1e-30)
    of_zeros = np.where(np.abs(a - b).max(-1) == 0, 1.0, 0.0)
    return float(np.where(lengths > 0, cosines, of_zeros).min())


def _short(value: float) -> float:
    return float(f"{value:.1e}")

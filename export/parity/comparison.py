"""What one graph gave, beside what PyTorch gave on the same tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Comparison", "Difference"]

_LEAST_OVERLAP = 0.98
_LEAST_COSINE = 0.9999
_PARTS = 10
_LONG = 100_000
_GROWTH = 2.0
"""From this many tokens on, the error at the end may be at most this many times the early one."""


@dataclass
class Difference:
    """How far one output is from PyTorch's.

    Attributes:
        largest: Largest |difference|.
        step: The step of the stream where it occurred, from 0.
        first_beyond: The first step at which it was beyond the tolerance; ``None`` if none.
        cosine: Least cosine between the two, over steps and rows.
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
        wanted: npt.NDArray[Any],
        found: npt.NDArray[Any],
        steps: npt.NDArray[Any],
        tolerance: float,
    ) -> npt.NDArray[np.float64]:
        """Take in two arrays ``[B, len(steps), ...]``; return the largest of each step."""
        a, b = wanted.astype(np.float64), found.astype(np.float64)
        with np.errstate(invalid="ignore"):
            apart = np.abs(a - b) if a.shape == b.shape else np.full(a.shape, np.inf)
        # What is not a number is as far off as can be.
        apart = np.where(np.isfinite(apart), apart, np.inf)
        by_step: npt.NDArray[np.float64] = apart.reshape(len(apart), len(steps), -1).max(
            axis=(0, 2)
        )
        worst = int(by_step.argmax())
        if by_step[worst] > self.largest:
            self.largest, self.step = float(by_step[worst]), int(steps[worst])
        beyond = np.flatnonzero(by_step > tolerance)
        if beyond.size and self.first_beyond is None:
            self.first_beyond = int(steps[int(beyond[0])])
        self.total += float(apart.sum())
        self.count += apart.size
        if np.isfinite(apart).all():
            flat = (len(a), len(steps), -1)
            self.cosine = min(self.cosine, _least_cosine(a.reshape(flat), b.reshape(flat)))
        else:
            self.cosine = -1.0
        return by_step

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON values, to two digits."""
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
        text: What was read.
        tokens: Number of tokens read, over all rows.
        greedy_differences: Steps whose chosen token differs by more than a tie.
        first_greedy_difference: The first such step; ``None`` if there is none.
        overlap: Mean share of the ten likeliest tokens that both have.
        outputs: How far each output is off, by name: the logits, and each state tensor.
        parts: Largest |difference| of a logit in each tenth of the stream.
        provider: The execution provider that was compared.
        nats: Negative log-probability of the tokens that came, summed, by the engine.
        nats_wanted: The same by PyTorch.
        predicted: Tokens in these sums.
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
    nats_wanted: float = 0.0
    predicted: int = 0

    @property
    def loss_rise(self) -> float:
        """Nats per token by which the engine predicts what came worse than PyTorch."""
        return (self.nats - self.nats_wanted) / self.predicted if self.predicted else 0.0

    @property
    def deltas(self) -> dict[str, float]:
        """Largest |difference| of each output, by name."""
        return {name: output.largest for name, output in self.outputs.items()}

    @property
    def cosine(self) -> float:
        """Least cosine between two logit vectors."""
        return self.outputs["logits"].cosine if "logits" in self.outputs else 1.0

    @property
    def growth(self) -> float:
        """The logits' largest difference in the last tenth over that in the first two."""
        return self.parts[-1] / max(self.parts[0], self.parts[1], 1e-9)

    def failure(self, tolerance: float) -> str | None:
        """Why the comparison fails, in the order of the gate; ``None`` when it passes."""
        where = f"{self.graph} on {self.text}"
        source = self._source(tolerance)
        if self.greedy_differences:
            return (
                f"{where}: the chosen token differs in {self.greedy_differences} of "
                f"{self.tokens} steps, first at step {self.first_greedy_difference}{source}"
            )
        if not self.overlap >= _LEAST_OVERLAP:
            return f"{where}: the ten likeliest tokens agree to {self.overlap:.3f} only{source}"
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
        """The state tensor that is off and stands earliest in the flow of data."""
        for name, output in self.outputs.items():
            if name != "logits" and not output.largest <= tolerance:
                return (
                    f"; the first state tensor that is off is {name}, by {output.largest:.2e} "
                    f"(seen at step {output.first_beyond})"
                )
        return ""

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON values, differences to two digits."""
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


def _least_cosine(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    """Least cosine along the last axis; two vectors of zeros are alike."""
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    cosines = (a * b).sum(-1) / np.maximum(lengths, 1e-30)
    alike = np.where(lengths > 0, cosines, np.where(np.abs(a - b).max(-1) == 0, 1.0, 0.0))
    return float(alike.min())


def _short(value: float) -> float:
    return float(f"{value:.1e}")

"""The verdict of the parity gate, as an error, as JSON and as a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...runtime.errors import ParityError
from .comparison import Comparison
from .texts import REAL_TEXTS

__all__ = ["TOLERANCE", "ParityReport"]

TOLERANCE = {"fp32": 1e-4, "fp16": 5e-3}
"""Largest |difference| of a logit or a state value, by precision.

A precision that is missing here is judged by its loss. Its differences are only reported, and its
loss on real text may rise by what :func:`rillet.export.quantize` was allowed on held-out text.
"""


@dataclass(frozen=True)
class ParityReport:
    """What the gate measured.

    Attributes:
        comparisons: Figures of each graph, text and execution provider.
        precision: Precision of the graphs; sets the tolerance.
        culprits: Differences between the graphs and a fresh export of the checkpoint, if they
            were looked for.
        max_loss_rise: Nats per token by which the loss on real text may rise, for a precision
            that is judged by its loss.
    """

    comparisons: tuple[Comparison, ...]
    precision: str = "fp32"
    culprits: tuple[str, ...] = ()
    max_loss_rise: float = 0.0

    @property
    def failure(self) -> str | None:
        """Why the gate fails; ``None`` if it passes."""
        if self.precision not in TOLERANCE:
            return self._loss_failure()
        failures = (row.failure(TOLERANCE[self.precision]) for row in self.comparisons)
        failure = next((failure for failure in failures if failure is not None), None)
        if failure is not None and self.culprits:
            return f"{failure}; in the graphs: {'; '.join(self.culprits)}"
        return failure

    def _loss_failure(self) -> str | None:
        for row in self.comparisons:
            if row.text in REAL_TEXTS and not row.loss_rise <= self.max_loss_rise:
                return (
                    f"{row.graph} on {row.text}: the loss rises by {row.loss_rise:.4f} nats per "
                    f"token, and {self.max_loss_rise:g} is allowed"
                )
        return None

    @property
    def passed(self) -> bool:
        """Whether the gate passes."""
        return self.failure is None

    def check(self) -> ParityReport:
        """Return the report if the gate passes.

        Raises:
            ParityError: A comparison fails; the message names the graph, the output and the figure.
        """
        if self.failure is not None:
            raise ParityError(f"the graphs do not compute what PyTorch computes: {self.failure}")
        return self

    def to_list(self) -> list[dict[str, Any]]:
        """The figures as JSON values."""
        return [row.to_dict() for row in self.comparisons]

    def table(self) -> str:
        """The figures as a text table: a line per comparison, with its worst state tensor."""
        lines = [
            f"{'graph':8} {'read':14} {'tokens':>7} {'chosen':>7} {'top 10':>7} {'cosine':>8} "
            f"{'logits':>8} {'mean':>8} {'at step':>8} {'state':>8}  largest state difference in"
        ]
        for row in self.comparisons:
            states = {name: delta for name, delta in row.deltas.items() if name != "logits"}
            worst = max(states, key=lambda name: states[name])
            chosen = "equal" if not row.greedy_differences else str(row.greedy_differences)
            logits = row.outputs["logits"]
            lines.append(
                f"{row.part:8} {row.text:14} {row.tokens:7} {chosen:>7} {row.overlap:7.4f} "
                f"{row.cosine:8.6f} {logits.largest:8.1e} {logits.mean:8.1e} {logits.step:8} "
                f"{states[worst]:8.1e}  {worst}"
            )
        return "\n".join(lines)

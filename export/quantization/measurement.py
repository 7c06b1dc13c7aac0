"""What a lowered precision costs, and the limits that it must keep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...runtime.bundle import WEIGHTS_FILE, Bundle
from ...runtime.engines.native.library import library_path
from ...runtime.errors import ParityError
from ..parity.comparison import Comparison
from ..parity.engines import measuring_engine, open_engines
from ..parity.losses import prefill_loss, step_loss
from ..parity.report import TOLERANCE
from .drift import drift_work, measure_drift
from .held_out import MeasuredText

__all__ = ["Lowering", "check_cost", "measure_cost", "quantize_work"]

_STEPS = 4_000
"""Tokens that the step graph is measured on."""


@dataclass(frozen=True)
class Lowering:
    """A request to lower a bundle, with all defaults filled in.

    Attributes:
        precision: The lower precision.
        method: Its method.
        recurrence: Whether to lower the recurrence too.
        max_loss_rise: Nats per token by which the loss may rise.
        max_difference: Largest |difference| of a logit or a state value; infinite for a precision
            that is judged by its loss.
        text: The tokens to calibrate and to measure on.
    """

    precision: str
    method: str
    recurrence: bool
    max_loss_rise: float
    max_difference: float
    text: MeasuredText


def measure_cost(
    source: Bundle,
    lowered: Bundle,
    lowering: Lowering,
    progress: Callable[[int], object] | None,
) -> tuple[dict[str, Any], list[Comparison]]:
    """Measure the losses of both bundles, and the difference between them.

    Args:
        source: The bundle in float32.
        lowered: The lowered bundle.
        lowering: How it was lowered.
        progress: Called with the number of tokens read.

    Returns:
        The figures for the manifest, and a comparison of each graph on each text.
    """
    before = measuring_engine(source)
    after, *native = open_engines(lowered)
    start = source.start_state()
    text, tokens = lowering.text, lowering.text.tokens
    first = tokens[:, : _STEPS + 1]
    figures = {
        "text": text.name,
        "text_sha256": text.sha256,
        "part": text.part,
        "tokens": tokens.shape[1] - 1,
        "loss": prefill_loss(after, tokens, progress, start),
        "loss_fp32": prefill_loss(before, tokens, progress, start),
        "steps": first.shape[1] - 1,
        "step_loss": step_loss(after, first, progress, start),
        "step_loss_fp32": step_loss(before, first, progress, start),
        "max_loss_rise": lowering.max_loss_rise,
    }
    tie = min(lowering.max_difference, TOLERANCE["fp16"])
    rows = measure_drift(before, after, tokens, tie, progress, start)
    for engine in native:
        figures["native_loss"] = prefill_loss(engine, tokens, progress, start)
        rows += measure_drift(before, engine, tokens, tie, progress, start)
    figures = {k: round(v, 6) if isinstance(v, float) else v for k, v in figures.items()}
    if lowering.precision == "fp16":
        figures["max_difference"] = lowering.max_difference
    return figures, rows


def check_cost(lowering: Lowering, figures: dict[str, Any], rows: list[Comparison]) -> None:
    """Check the figures against the limits.

    Raises:
        ParityError: The loss rises too far, or fp16 differs too much.
    """
    graphs = any(row.provider != "native" for row in rows)
    measured = (
        ("prefill graph" if graphs else "native engine", "loss", "loss_fp32"),
        ("decode graph", "step_loss", "step_loss_fp32"),
        ("native engine", "native_loss", "loss_fp32"),
    )
    for part, loss, before in measured:
        rise = figures.get(loss, figures[before]) - figures[before]
        if not rise <= lowering.max_loss_rise:
            raise ParityError(
                f"{lowering.precision} ({lowering.method}) raises the loss of the {part} on "
                f"{lowering.text.name} by {rise:.4f} nats per token, to {figures[loss]:.4f}, and "
                f"{lowering.max_loss_rise:g} is allowed; choose another method or precision, or "
                "allow more with --max-loss-rise"
            )
    if lowering.precision != "fp16":
        return
    for row in rows:
        failure = row.failure(lowering.max_difference)
        if failure is not None:
            raise ParityError(
                f"{lowering.precision} ({lowering.method}) is too far from float32: {failure}; "
                "choose another method, or stay with fp32"
            )


def quantize_work(source: Bundle, precision: str, tokens: int) -> int:
    """Tokens that :func:`rillet.export.quantize` reads of a text, for a progress bar.

    Args:
        source: The bundle in float32.
        precision: The lower precision.
        tokens: Tokens of the text.
    """
    work = 2 * tokens + 2 * min(tokens, _STEPS)
    if not source.has_graphs:
        return work + drift_work("native", tokens)
    work += drift_work("cpu", tokens)
    native = precision == "int8" and WEIGHTS_FILE in source.hashes() and library_path() is not None
    return work + tokens + drift_work("native", tokens) if native else work

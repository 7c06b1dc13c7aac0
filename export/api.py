"""Exporting, verifying and quantising, as functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..runtime.bundle import Bundle
from ..runtime.engines.base import Provider
from ..runtime.engines.ort.generate_graph import GraphGenerator
from ..runtime.engines.ort.host_engine import OnnxEngine
from ..runtime.engines.select import open_engine
from ..runtime.errors import ParityError, UsageError
from ..runtime.files import scratch_folder
from ..train.checkpoint import Checkpoint, load_checkpoint
from .bundle.writer import check_target, write_bundle
from .graphs.metadata import weights_sha256
from .options import ExportOptions
from .parity.gate import STEPS, TOLERANCE, ParityReport, compare, gate_tokens, gate_total, run_gate
from .parity.generate_parity import GENERATED, compare_generate
from .parity.graph_diff import culprits
from .quantization.conversions import chosen_method
from .quantization.lower_precision import quantize

__all__ = ["export", "export_with_report", "verify", "verify_total"]

LONG = 100_000
"""Steps of the long comparison."""


def export(
    checkpoint: Checkpoint | str | Path,
    out: str | Path,
    *,
    precision: str = "fp32",
    text: str | Path | None = None,
    max_loss_rise: float | None = None,
    progress: Callable[[int], object] | None = None,
    note: Callable[[str], object] | None = None,
    **options: Any,
) -> Bundle:
    """Export a checkpoint to a bundle, if it passes the parity gate.

    Args:
        checkpoint: A loaded checkpoint, or the folder that ``rillet train`` wrote.
        out: The folder to write; an older bundle there is replaced as a whole.
        precision: ``fp32``; or a lower one, to which the graphs are lowered once they have
            passed the gate in float32: see :func:`.lower_precision.quantize`.
        text: A text to measure the loss on, for a lower precision.
        max_loss_rise: How far the loss may rise, for a lower precision.
        progress: Called with the number of tokens that the gate has read.
        note: Called with what is done next, in words.
        **options: Fields of :class:`ExportOptions`.

    Returns:
        The bundle, opened.

    Raises:
        UsageError: ``out`` is something else than a bundle, or an option can never work.
        BundleError: There is no checkpoint, or it is damaged.
        ParityError: A graph fails the gate; nothing was written.
    """
    return export_with_report(
        checkpoint, Path(out), ExportOptions(**options), precision, text, max_loss_rise,
        progress, note,
    )[0]  # fmt: skip


def export_with_report(
    checkpoint: Checkpoint | str | Path,
    out: Path,
    options: ExportOptions,
    precision: str = "fp32",
    text: str | Path | None = None,
    max_loss_rise: float | None = None,
    progress: Callable[[int], object] | None = None,
    note: Callable[[str], object] | None = None,
) -> tuple[Bundle, ParityReport]:
    """Like :func:`export`; gives the float32 graphs' figures as well."""
    if precision == "fp32" and (text is not None or max_loss_rise is not None):
        raise UsageError(
            "text and max_loss_rise are for a lower precision, and this one is fp32; leave them "
            "out, or choose fp16, int8 or int4"
        )
    check_target(out)
    loaded = checkpoint if isinstance(checkpoint, Checkpoint) else load_checkpoint(Path(checkpoint))
    if precision == "fp32":
        report = write_bundle(loaded, out, progress=progress, options=options, note=note)
        return Bundle.open(out), report
    chosen_method(precision, None, False)
    with scratch_folder(out) as scratch:
        whole = scratch / out.name
        report = write_bundle(loaded, whole, progress=progress, options=options, note=note)
        if note is not None:
            note(precision)
        bundle = quantize(whole, out, precision, text=text, max_loss_rise=max_loss_rise)
    return bundle, report


def verify(
    bundle: Bundle | str | Path,
    checkpoint: Checkpoint | str | Path,
    *,
    engines: Sequence[Provider] = ("cpu",),
    steps: int = STEPS,
    long: bool = False,
    progress: Callable[[int], object] | None = None,
) -> ParityReport:
    """Compare a bundle's graphs with the PyTorch model that they were made from.

    Args:
        bundle: The bundle, or its folder.
        checkpoint: The checkpoint, or the folder of the run.
        engines: Execution providers to compare, such as ``cpu`` or ``cuda``.
        steps: Tokens of real text for each graph.
        long: Also stream 100,000 tokens through the step graph, and refuse an error that
            grows with the stream.
        progress: Called with the number of tokens read.

    Returns:
        The figures; :meth:`ParityReport.check` refuses those that fail.

    A precision that is judged by its loss, int8 or int4, may not predict the gate's real text
    worse than PyTorch by more than its bundle was allowed.

    Raises:
        ParityError: The bundle is of other weights.
    """
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    loaded = checkpoint if isinstance(checkpoint, Checkpoint) else load_checkpoint(Path(checkpoint))
    model, tokenizer = loaded.model, loaded.tokenizer
    if weights_sha256(model) != opened.manifest.get("weights_sha256"):
        raise ParityError(
            f"{opened.path} was exported from other weights than those of the checkpoint; "
            "export the checkpoint again"
        )
    precision = str(opened.manifest.get("precision"))
    tolerance = TOLERANCE.get(precision, TOLERANCE["fp32"])
    rows = []
    for provider in engines:
        engine = open_engine(opened, provider)
        rows += run_gate(model, tokenizer, engine, precision, steps, progress)
        if GraphGenerator.exists(opened) and isinstance(engine, OnnxEngine):
            rows.append(compare_generate(model, tokenizer, engine, steps, tolerance, progress))
        if long:
            tokens = np.tile(gate_tokens(tokenizer, LONG // 2), 2)
            rows.append(
                compare(model, engine, "decode", tokens, "long text", tolerance, progress=progress)
            )
    lowered: Any = opened.manifest.get("quantization")
    allowed = float(lowered["max_loss_rise"]) if isinstance(lowered, dict) else 0.0
    report = ParityReport(tuple(rows), precision, max_loss_rise=allowed)
    if report.failure is not None and precision == "fp32":
        return ParityReport(tuple(rows), precision, tuple(culprits(model, opened)))
    return report


def verify_total(
    bundle: Bundle | str | Path, engines: Sequence[Provider], steps: int, long: bool
) -> int:
    """Tokens that :func:`verify` reads, for a progress bar."""
    bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    total = len(engines) * (gate_total(steps) + (LONG if long else 0))
    return total + (GENERATED if GraphGenerator.exists(bundle) and "cpu" in engines else 0)

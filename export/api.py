"""The exporter as functions: export, verify and quantise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..runtime.bundle import Bundle
from ..runtime.engines.base import Provider
from ..runtime.engines.ort.generate_graph import GraphGenerator
from ..runtime.engines.select import open_engine
from ..runtime.errors import ParityError, UsageError
from ..runtime.files import as_path, scratch_folder
from ..train.checkpoint import Checkpoint, load_checkpoint, weights_sha256
from ..train.teach import resized
from .bundle.folder import check_target
from .bundle.writer import write_bundle
from .options import ExportOptions
from .parity.gate import STEPS, gate_work, run_gate
from .parity.graph_diff import bundle_differences
from .parity.report import ParityReport
from .quantization.conversions import check_native, chosen_method
from .quantization.lower_precision import quantize

__all__ = ["export", "export_with_report", "verify", "verify_work"]


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
        out: The folder to write; replaces an older bundle as a whole.
        precision: ``fp32``, or a lower precision. The graphs pass the gate in float32 before they
            are lowered; see :func:`rillet.export.quantize`.
        text: For a lower precision: a text to measure the loss on.
        max_loss_rise: For a lower precision: nats per token by which the loss may rise.
        progress: Called with the number of tokens that the gate has read.
        note: Called with the name of each phase.
        **options: Fields of :class:`ExportOptions`.

    Returns:
        The bundle, opened.

    Raises:
        UsageError: ``out`` exists and is not a bundle, or an option is out of range or does not
            fit the model.
        CorpusError: A text to teach cannot be used.
        BundleError: The checkpoint is missing or damaged.
        ParityError: A graph fails the gate; nothing was written.
    """
    exported = export_with_report(
        checkpoint,
        as_path(out),
        ExportOptions(**options),
        precision,
        text,
        max_loss_rise,
        progress,
        note,
    )
    return exported[0]


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
    """Like :func:`export`, but also return the parity figures of the float32 graphs."""
    if precision == "fp32" and (text is not None or max_loss_rise is not None):
        raise UsageError(
            "text and max_loss_rise apply to a lower precision, and the precision is fp32; leave "
            "them out, or choose fp16, int8 or int4"
        )
    check_target(out)
    if not isinstance(checkpoint, Checkpoint) and as_path(checkpoint).resolve() == out.resolve():
        raise UsageError(
            f"{out} is the bundle that is exported, and would be lost; choose another --out"
        )
    loaded = _load(checkpoint)
    if precision == "fp32":
        report = write_bundle(loaded, out, progress=progress, options=options, note=note)
        return Bundle.open(out), report
    check_native(not options.native_only, precision, chosen_method(precision, None, False))
    with scratch_folder(out) as scratch:
        full = scratch / out.name
        report = write_bundle(loaded, full, progress=progress, options=options, note=note)
        if note is not None:
            note(precision)
        bundle = quantize(
            full,
            out,
            precision,
            text=text,
            max_loss_rise=max_loss_rise,
            sample=loaded.text_sample,
        )
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
    """Compare a bundle's graphs with the PyTorch model they were exported from.

    A precision that is judged by its loss, int8 or int4, may predict the gate's real text worse
    than PyTorch by as much as its bundle was allowed.

    Args:
        bundle: The bundle, or its folder.
        checkpoint: The checkpoint, or the folder of the run.
        engines: Execution providers to compare, such as ``cpu`` or ``cuda``.
        steps: Tokens of real text for each graph.
        long: Also stream 100,000 tokens through the step graph, and reject an error that grows
            with the stream.
        progress: Called with the number of tokens read.

    Returns:
        The figures; :meth:`ParityReport.check` raises if they fail.

    Raises:
        ParityError: The bundle was exported from other weights.
    """
    opened, loaded = _open(bundle), _load(checkpoint)
    model, tokenizer = loaded.model, loaded.tokenizer
    if weights_sha256(model) != opened.manifest.get("weights_sha256"):
        raise ParityError(
            f"{opened.path} was exported from other weights than the checkpoint's; "
            "export the checkpoint again"
        )
    model = _of_bundles_size(loaded, opened).model
    precision = str(opened.manifest.get("precision"))
    rows = []
    for provider in engines:
        engine = open_engine(opened, provider)
        rows += run_gate(
            model, tokenizer, engine, precision, steps, progress, long, loaded.text_sample
        )
    lowered: Any = opened.manifest.get("quantization")
    allowed = float(lowered["max_loss_rise"]) if isinstance(lowered, dict) else 0.0
    report = ParityReport(tuple(rows), precision, max_loss_rise=allowed)
    if report.failure is not None and precision == "fp32":
        return ParityReport(tuple(rows), precision, tuple(bundle_differences(model, opened)))
    return report


def verify_work(
    bundle: Bundle | str | Path, engines: Sequence[Provider], steps: int, long: bool
) -> int:
    """Tokens that :func:`verify` reads, for a progress bar."""
    opened = _open(bundle)
    generate, taught = GraphGenerator.exists(opened), opened.start_state() is not None
    return sum(
        gate_work(engine, steps, generate and engine == "cpu", long, taught) for engine in engines
    )


def _open(bundle: Bundle | str | Path) -> Bundle:
    return bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)


def _of_bundles_size(checkpoint: Checkpoint, bundle: Bundle) -> Checkpoint:
    """The checkpoint with a memory of the size that was chosen at export."""
    model: Any = bundle.manifest.get("model")
    size = model.get("memory") if isinstance(model, dict) else None
    contexts = checkpoint.model.config.memory_key == "contexts"
    return resized(checkpoint, size) if contexts and size and type(size) is int else checkpoint


def _load(checkpoint: Checkpoint | str | Path) -> Checkpoint:
    return checkpoint if isinstance(checkpoint, Checkpoint) else load_checkpoint(checkpoint)

"""A bundle in lower precision, with what that costs measured and written into it."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from ...runtime.bundle import BUNDLE_FILE, Bundle, checksum
from ...runtime.engines.ort.host_engine import OnnxEngine
from ...runtime.errors import ParityError, UsageError
from ...runtime.files import replace_folder, sha256_file, write_atomic
from ...runtime.tokenizer import Tokenizer
from ..bundle.model_card import model_card
from ..bundle.timing import measure
from ..bundle.writer import CARD, ONNXRUNTIME, check_target
from ..graphs.build import fix_batch
from ..graphs.generate_graph import generate_graph
from ..graphs.scatter_read import scatter_read
from ..parity.comparison import Comparison
from ..parity.gate import TOLERANCE
from .conversions import PRECISIONS, chosen_method, convert
from .drift import drift, drift_total
from .held_out import TOKENS, MeasuredText, check_limit, measured_text, prefill_loss, step_loss
from .matmuls import walk

__all__ = ["quantize", "quantize_total"]

_STEPS = 4_000
"""Tokens that the step graph is measured on."""

_KEPT = ("tokenizer.json", "generation_config.json")


@dataclass(frozen=True)
class _Job:
    """What was asked for, every default filled in."""

    precision: str
    method: str
    recurrence: bool
    max_loss_rise: float
    max_difference: float
    text: MeasuredText


def quantize(
    bundle: Bundle | str | Path,
    out: str | Path,
    precision: str,
    *,
    method: str | None = None,
    text: str | Path | None = None,
    max_loss_rise: float | None = None,
    max_difference: float | None = None,
    recurrence: bool = False,
    tokens: int | None = TOKENS,
    progress: Callable[[int], object] | None = None,
) -> Bundle:
    """Lower a bundle's precision, if its loss does not rise by more than is allowed.

    State, logits, the memory and, unless asked for, the recurrence stay float32. Graphs other
    than the step, prefill and generating graphs are left out; ``quantization.left_out`` of the
    new manifest names them.

    Args:
        bundle: A bundle in fp32, or its folder.
        out: The folder to write; an older bundle there is replaced as a whole.
        precision: ``fp16``, ``int8`` or ``int4``.
        method: ``weight-only`` or ``multiply`` for fp16; ``weight-only``, ``dynamic`` or
            ``static`` for int8; ``weight-only`` for int4. The first when absent.
        text: A UTF-8 text to measure the loss on. Of the corpus that the model was trained on,
            the held-out part is taken. Python's reference texts when absent.
        max_loss_rise: Nats per token by which the loss may rise above float32's: 0.001 for
            fp16, 0.01 for int8 and 0.05 for int4 when absent.
        max_difference: Of fp16 only: largest |difference| of a logit or a state value from
            float32's. As many products are lowered as hold it. The gate's 5e-3 when absent;
            a bundle that was given more fails a comparison with its checkpoint.
        recurrence: Lower the reservoir's recurrence too.
        tokens: Tokens of the text to measure at most; ``None`` for all.
        progress: Called with the number of tokens read.

    Returns:
        The new bundle, opened.

    Raises:
        UsageError: An option can never work, or ``out`` is something else than a bundle.
        BundleError: There is no bundle, or it is damaged.
        CorpusError: The text cannot be read, or is too short.
        ParityError: The loss rises too far, or fp16 differs by too much; nothing was written.
    """
    method = chosen_method(precision, method, recurrence)
    if max_loss_rise is None:
        max_loss_rise = PRECISIONS[precision].max_loss_rise
    if not max_loss_rise >= 0:
        raise UsageError(f"max_loss_rise is {max_loss_rise!r}; give nats per token, 0 or above")
    if max_difference is not None and (precision != "fp16" or not max_difference > 0):
        raise UsageError(
            f"max_difference is {max_difference!r} for {precision}; it is of fp16 only, and above "
            "0: leave it out"
        )
    check_limit(tokens)
    source = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    found = source.manifest.get("precision")
    if found != "fp32":
        raise UsageError(
            f"{source.path} is in {found} already, and lowering it again would add its errors up; "
            "give the bundle in fp32 that it was made from"
        )
    target = Path(out)
    if target.exists() and target.resolve() == source.path.resolve():
        raise UsageError(
            f"{target} is the bundle in fp32 itself, which would be lost; choose another --out"
        )
    check_target(target)
    tokenizer = Tokenizer.load(source.file("tokenizer.json"))
    measured = measured_text(source, tokenizer, text, tokens)
    # int8 and int4 are judged by their loss; their differences are written down alone.
    nearest = TOLERANCE.get(precision, math.inf) if max_difference is None else max_difference
    job = _Job(precision, method, recurrence, float(max_loss_rise), nearest, measured)
    with replace_folder(target) as folder:
        manifest = _write_files(source, folder, job)
        _write_manifest(folder, manifest)
        fresh = Bundle.open(folder)
        figures, rows = _measure(source, fresh, job, progress)
        _gate(job, figures, rows)
        manifest["parity"] = [row.to_dict() for row in rows]
        manifest["quantization"] |= figures
        _write_manifest(folder, manifest)
        sizes = {file.name: file.stat().st_size for file in folder.iterdir()}
        times = measure(Bundle.open(folder))
        write_atomic(folder / CARD, model_card(target.name, manifest, sizes, times).encode())
    return Bundle.open(target)


def quantize_total(tokens: int) -> int:
    """Tokens that :func:`quantize` reads of a text of this length, for a progress bar."""
    return 2 * tokens + 2 * min(tokens, _STEPS) + drift_total(tokens)


def _write_files(source: Bundle, folder: Path, job: _Job) -> dict[str, Any]:
    """Write graphs and what goes with them; return the manifest."""
    for name in _KEPT:
        write_atomic(folder / name, source.file(name).read_bytes())
    manifest = copy.deepcopy(source.manifest)
    manifest.pop("checksum")
    entries = manifest["graphs"]
    lowered: dict[str, onnx.ModelProto] = {}
    for kind in ("decode", "prefill"):
        lowered[kind] = convert(
            onnx.load(source.graph(kind)),
            job.precision,
            job.method,
            job.recurrence,
            job.text.calibration,
            source.state,
            job.max_difference,
        )
    fast = scatter_read(lowered["decode"])
    if job.method not in PRECISIONS[job.precision].portable:
        # Other engines cannot read its products anyway.
        lowered["decode"] = fast
        for kind in entries:
            entries[kind]["only"] = ONNXRUNTIME
    if "generate" in entries:
        lowered["generate"] = generate_graph(fast)
    if "decode_static" in entries:
        lowered["decode_static"] = copy.deepcopy(lowered["decode"])
        fix_batch(lowered["decode_static"], entries["decode_static"]["batch"])
    for kind, model in lowered.items():
        properties = {p.key: p.value for p in onnx.load(source.graph(kind)).metadata_props}
        properties |= {"rillet.precision": job.precision, "rillet.method": job.method}
        onnx.helper.set_model_props(model, properties)
        path = folder / f"{kind}.onnx"
        write_atomic(path, model.SerializeToString(deterministic=True))
        entries[kind] = {**entries[kind], "file": path.name, "sha256": sha256_file(path)}
    counts = {kind: _lowered(model) for kind, model in lowered.items()}
    left_out = [entries[kind]["file"] for kind in entries if kind not in lowered]
    left_out += [name for name in manifest["files"] if name not in _KEPT]
    manifest["graphs"] = {kind: entries[kind] for kind in entries if kind in lowered}
    manifest["files"] = {name: sha256_file(folder / name) for name in _KEPT}
    manifest["precision"] = job.precision
    manifest["quantization"] = {
        "method": job.method,
        "lowered_bytes": counts,
        "recurrence": job.recurrence,
        "quantizer": OnnxEngine(source, "cpu").version,
        "left_out": sorted(left_out),
    }
    manifest["parity"] = []
    return manifest


def _lowered(model: onnx.ModelProto) -> int:
    """Bytes of what is held in fewer bits than 32."""
    narrow = (onnx.TensorProto.FLOAT16, onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
    return sum(
        len(tensor.raw_data)
        for graph, _ in walk(model.graph)
        for tensor in graph.initializer
        if tensor.data_type in narrow
    )


def _measure(
    source: Bundle, fresh: Bundle, job: _Job, progress: Callable[[int], object] | None
) -> tuple[dict[str, Any], list[Comparison]]:
    """Losses of both bundles, and how far the new one is off."""
    before, after, tokens = OnnxEngine(source, "cpu"), OnnxEngine(fresh, "cpu"), job.text.tokens
    first = tokens[:, : _STEPS + 1]
    figures = {
        "text": job.text.name,
        "text_sha256": job.text.sha256,
        "part": job.text.part,
        "tokens": tokens.shape[1] - 1,
        "loss": prefill_loss(after, tokens, progress),
        "loss_fp32": prefill_loss(before, tokens, progress),
        "steps": first.shape[1] - 1,
        "step_loss": step_loss(after, first, progress),
        "step_loss_fp32": step_loss(before, first, progress),
        "max_loss_rise": job.max_loss_rise,
    }
    figures = {k: round(v, 6) if isinstance(v, float) else v for k, v in figures.items()}
    if job.precision == "fp16":
        figures["max_difference"] = job.max_difference
    # Likeliest tokens that lie as close as what is allowed are a tie.
    tie = min(job.max_difference, TOLERANCE["fp16"])
    return figures, drift(before, after, tokens, tie, progress)


def _gate(job: _Job, figures: dict[str, Any], rows: list[Comparison]) -> None:
    """Refuse what lost too much."""
    for loss, graph in (("loss", "prefill"), ("step_loss", "decode")):
        rise = figures[loss] - figures[f"{loss}_fp32"]
        if not rise <= job.max_loss_rise:
            raise ParityError(
                f"{job.precision} ({job.method}) raises the loss of the {graph} graph on "
                f"{job.text.name} by {rise:.4f} nats per token, to {figures[loss]:.4f}, and "
                f"{job.max_loss_rise:g} is allowed; choose another method or precision, or allow "
                "more with --max-loss-rise"
            )
    if job.precision != "fp16":
        return
    for row in rows:
        failure = row.failure(job.max_difference)
        if failure is not None:
            raise ParityError(
                f"{job.precision} ({job.method}) is too far from float32: {failure}; choose "
                "another method, or stay with fp32"
            )


def _write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    content = {**manifest, "checksum": checksum(manifest)}
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    write_atomic(folder / BUNDLE_FILE, text.encode())

"""A bundle in lower precision, with the measured cost in its manifest."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx

from ...runtime.bundle import WEIGHTS_FILE, Bundle
from ...runtime.errors import UsageError
from ...runtime.files import as_path, replace_folder, sha256_file, write_atomic
from ...runtime.start_state import START_STATE_FILE
from ...runtime.text_sample import TextSample
from ...runtime.tokenizer import Tokenizer
from ...train.data.text_sources import recorded_name
from ..bundle.folder import ONNXRUNTIME, check_target, write_card, write_manifest
from ..graphs.build import fix_batch
from ..graphs.generate import generate_graph
from ..graphs.scatter_read import read_by_scatter
from ..options import check_count
from ..parity.engines import measuring_engine
from ..parity.report import TOLERANCE
from .conversions import PRECISIONS, check_native, chosen_method, convert
from .held_out import FEWEST_TOKENS, TOKENS, measured_text
from .int8_weights import int8_weights
from .matmuls import walk
from .measurement import Lowering, check_cost, measure_cost

__all__ = ["quantize"]

_KEPT = ("tokenizer.json", "generation_config.json", START_STATE_FILE)


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
    sample: TextSample | None = None,
) -> Bundle:
    """Lower a bundle's precision, unless its loss rises by more than is allowed.

    State, logits, the memory and, by default, the recurrence stay float32. Only the step, prefill,
    generating and static graphs are lowered, and for int8 the native engine's weights; other files
    are left out, and ``quantization.left_out`` of the new manifest lists them. A bundle without
    graphs becomes another.

    Args:
        bundle: A bundle in fp32, or its folder.
        out: The folder to write; replaces an older bundle as a whole.
        precision: ``fp16``, ``int8`` or ``int4``.
        method: ``weight-only`` (default) or ``multiply`` for fp16; ``weight-only`` (default),
            ``dynamic`` or ``static`` for int8; ``weight-only`` for int4.
        text: A UTF-8 text to measure the loss on; by default, the sample of the run's held-out
            text that the bundle carries. Of the corpus that the model was trained on, only the
            held-out part is read.
        max_loss_rise: Nats per token by which the loss may exceed float32's; by default 0.001 for
            fp16, 0.01 for int8 and 0.05 for int4.
        max_difference: For fp16 only: largest |difference| of a logit or a state value from
            float32's, by default the gate's 5e-3. As many products are lowered as it allows. With a
            larger value, the bundle fails a comparison with its checkpoint.
        recurrence: Lower the reservoir's recurrence too.
        tokens: Most tokens of the text to measure; ``None`` for all.
        progress: Called with the number of tokens read.
        sample: The sample, for a bundle that does not carry it: ``Checkpoint.text_sample``.

    Returns:
        The new bundle, opened.

    Raises:
        UsageError: An option is out of range, or ``out`` exists and is not a bundle.
        BundleError: The bundle is missing or damaged.
        CorpusError: The text cannot be read or is too short.
        ParityError: The loss rises too far, or fp16 differs too much; nothing was written.
    """
    method = chosen_method(precision, method, recurrence)
    if max_loss_rise is None:
        max_loss_rise = PRECISIONS[precision].max_loss_rise
    _check_limits(precision, max_loss_rise, max_difference, tokens)
    source, target = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle), as_path(out)
    _check_paths(source, target)
    check_native(source.has_graphs, precision, method, recurrence)
    tokenizer = Tokenizer.load(source.file("tokenizer.json"))
    chosen_difference = max_difference
    if max_difference is None:
        # int8 and int4 are judged by their loss; their differences are only recorded.
        max_difference = TOLERANCE.get(precision, math.inf)
    lowering = Lowering(
        precision,
        method,
        recurrence,
        float(max_loss_rise),
        max_difference,
        measured_text(source, tokenizer, text, tokens, sample),
    )
    with replace_folder(target) as folder:
        manifest = _write_files(source, folder, lowering)
        arguments = _arguments(lowering, text, tokens, chosen_difference)
        manifest["arguments"] = {**_exported(source), "quantize": arguments}
        write_manifest(folder, manifest)
        figures, rows = measure_cost(source, Bundle.open(folder), lowering, progress)
        check_cost(lowering, figures, rows)
        manifest["parity"] = [row.to_dict() for row in rows]
        manifest["quantization"] |= figures
        write_manifest(folder, manifest)
        write_card(folder, target.name, manifest)
    return Bundle.open(target)


def _exported(source: Bundle) -> dict[str, Any]:
    """The arguments of the export, as far as its bundle tells them."""
    given = source.manifest.get("arguments")
    return given if isinstance(given, dict) else {}


def _arguments(
    lowering: Lowering,
    text: str | Path | None,
    tokens: int | None,
    max_difference: float | None,
) -> list[str]:
    """The options of ``rillet quantize`` that differ from the defaults."""
    arguments = ["--precision", lowering.precision, "--method", lowering.method]
    if text is not None:
        arguments += ["--text", recorded_name(text)]
    if lowering.max_loss_rise != PRECISIONS[lowering.precision].max_loss_rise:
        arguments += ["--max-loss-rise", str(lowering.max_loss_rise)]
    if max_difference is not None:
        arguments += ["--max-difference", str(max_difference)]
    if lowering.recurrence:
        arguments.append("--recurrence")
    if tokens is None:
        arguments.append("--all-tokens")
    elif tokens != TOKENS:
        arguments += ["--tokens", str(tokens)]
    return arguments


def _check_limits(
    precision: str, max_loss_rise: float, max_difference: float | None, tokens: int | None
) -> None:
    if not max_loss_rise >= 0:
        raise UsageError(f"max_loss_rise is {max_loss_rise!r}; give nats per token, 0 or above")
    if max_difference is not None and (precision != "fp16" or not max_difference > 0):
        raise UsageError(
            f"max_difference is {max_difference!r} for {precision}; it applies to fp16 only and "
            "must be above 0; leave it out"
        )
    if tokens is not None:
        check_count("tokens", tokens, FEWEST_TOKENS)


def _check_paths(source: Bundle, target: Path) -> None:
    precision = source.manifest.get("precision")
    if precision != "fp32":
        raise UsageError(
            f"{source.path} is already in {precision}, and lowering it again would add up the "
            "errors; give the fp32 bundle that it was made from"
        )
    if target.exists() and target.resolve() == source.path.resolve():
        raise UsageError(
            f"{target} is the fp32 bundle itself, which would be lost; choose another --out"
        )
    check_target(target)


def _write_files(source: Bundle, folder: Path, lowering: Lowering) -> dict[str, Any]:
    """Write every file except ``bundle.json`` and the card; return the manifest."""
    kept = [name for name in _KEPT if name in source.manifest["files"]]
    for name in kept:
        write_atomic(folder / name, source.file(name).read_bytes())
    if lowering.precision == "int8" and WEIGHTS_FILE in source.manifest["files"]:
        write_atomic(folder / WEIGHTS_FILE, int8_weights(source.checked_file(WEIGHTS_FILE)))
        kept.append(WEIGHTS_FILE)
    manifest = copy.deepcopy(source.manifest)
    manifest.pop("checksum")
    entries = manifest["graphs"]
    portable = lowering.method in PRECISIONS[lowering.precision].portable
    if not portable:
        for entry in entries.values():
            entry["only"] = ONNXRUNTIME
    graphs = _lowered_graphs(source, lowering, portable)
    for kind, model in graphs.items():
        properties = {p.key: p.value for p in onnx.load(source.graph(kind)).metadata_props}
        properties["rillet.precision"] = lowering.precision
        properties["rillet.method"] = lowering.method
        onnx.helper.set_model_props(model, properties)
        path = folder / f"{kind}.onnx"
        write_atomic(path, model.SerializeToString(deterministic=True))
        entries[kind] |= {"file": path.name, "sha256": sha256_file(path)}
    left_out = [entries[kind]["file"] for kind in entries if kind not in graphs]
    left_out += [name for name in manifest["files"] if name not in kept]
    manifest["graphs"] = {kind: entries[kind] for kind in entries if kind in graphs}
    manifest["files"] = {name: sha256_file(folder / name) for name in kept}
    manifest["precision"] = lowering.precision
    manifest["quantization"] = {
        "method": lowering.method,
        "lowered_bytes": {kind: _narrow_bytes(model) for kind, model in graphs.items()},
        "recurrence": lowering.recurrence,
        "quantizer": measuring_engine(source).version,
        "left_out": sorted(left_out),
    }
    manifest["parity"] = []
    return manifest


def _lowered_graphs(
    source: Bundle, lowering: Lowering, portable: bool
) -> dict[str, onnx.ModelProto]:
    """Lower the graphs of a bundle, by kind."""
    if not source.has_graphs:
        return {}
    graphs = {
        kind: convert(
            onnx.load(source.graph(kind)),
            lowering.precision,
            lowering.method,
            lowering.recurrence,
            lowering.text.calibration,
            source.state,
            lowering.max_difference,
        )
        for kind in ("decode", "prefill")
    }
    fast = read_by_scatter(graphs["decode"])
    if not portable:
        graphs["decode"] = fast
    entries = source.manifest["graphs"]
    if "generate" in entries:
        graphs["generate"] = generate_graph(fast)
    if "decode_static" in entries:
        graphs["decode_static"] = copy.deepcopy(graphs["decode"])
        fix_batch(graphs["decode_static"], entries["decode_static"]["batch"])
    return graphs


def _narrow_bytes(model: onnx.ModelProto) -> int:
    """Bytes of the constants that are stored in fewer than 32 bits."""
    narrow = (onnx.TensorProto.FLOAT16, onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
    return sum(
        len(tensor.raw_data)
        for graph, _ in walk(model.graph)
        for tensor in graph.initializer
        if tensor.data_type in narrow
    )

"""Writing a bundle: graphs, tokenizer, defaults, card, and the gate before the last step."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx

from ...runtime.bundle import BUNDLE_FILE, Bundle, checksum
from ...runtime.engines.ort.generate_graph import GraphGenerator
from ...runtime.engines.ort.host_engine import OnnxEngine
from ...runtime.errors import UsageError
from ...runtime.files import replace_folder, sha256_bytes, sha256_file, write_atomic
from ...runtime.state_table import FORMAT, FORMAT_VERSION, state_table_json
from ...runtime.tokenizer import Tokenizer
from ...train.checkpoint import Checkpoint
from ..graphs.build import decode_graph, fix_batch, prefill_graph
from ..graphs.generate_graph import generate_graph
from ..graphs.metadata import exporter_versions, state_table, weights_sha256, write_metadata
from ..graphs.scatter_read import scatter_read
from ..options import ExportOptions
from ..parity.gate import TOLERANCE, ParityReport, run_gate
from ..parity.generate_parity import compare_generate
from ..parity.golden import golden_record
from .genai import GENAI_FILES, write_genai
from .model_card import model_card
from .timing import measure

__all__ = ["CARD", "ONNXRUNTIME", "check_target", "write_bundle"]

CARD = "README.md"
"""The model card: the one file that is not hashed, so that it may be edited."""

ONNXRUNTIME = "onnxruntime"
"""In a manifest, the engine that alone can run a graph."""

_FILES = {
    BUNDLE_FILE,
    "decode.onnx",
    "prefill.onnx",
    "generate.onnx",
    "decode_static.onnx",
    "tokenizer.json",
    "generation_config.json",
    CARD,
    *GENAI_FILES,
}


def write_bundle(
    checkpoint: Checkpoint,
    target: Path,
    steps: int | None = None,
    progress: Callable[[int], object] | None = None,
    options: ExportOptions | None = None,
    note: Callable[[str], object] | None = None,
) -> ParityReport:
    """Export a checkpoint to a bundle, unless the graphs fail the parity gate.

    Args:
        checkpoint: The trained model and its tokenizer.
        target: The folder to write; an older bundle there is replaced as a whole.
        steps: Tokens of real text that the gate reads with each graph; those of the options
            when absent.
        progress: Called with the number of tokens that the gate has read.
        options: What to write; the defaults when absent.
        note: Called with what is done next, in words: a graph takes some seconds to build.

    Returns:
        The gate's figures.

    Raises:
        UsageError: ``target`` is something else than a bundle.
        ParityError: A graph fails the gate; nothing was written.
    """
    options = options or ExportOptions()
    if steps is not None:
        options = dataclasses.replace(options, parity_steps=steps)
    check_target(target)
    with replace_folder(target) as folder:
        manifest = _write_files(checkpoint, folder, options, note or _silent)
        _write_json(folder / BUNDLE_FILE, {**manifest, "checksum": checksum(manifest)})
        report = _gate(checkpoint, Bundle.open(folder), options.parity_steps, progress).check()
        manifest["parity"] = report.to_list()
        _write_json(folder / BUNDLE_FILE, {**manifest, "checksum": checksum(manifest)})
        sizes = {file.name: file.stat().st_size for file in folder.iterdir()}
        times = measure(Bundle.open(folder))
        write_atomic(folder / CARD, model_card(target.name, manifest, sizes, times).encode())
    return report


def _gate(
    checkpoint: Checkpoint,
    bundle: Bundle,
    steps: int,
    progress: Callable[[int], object] | None,
) -> ParityReport:
    """Compare every graph of a fresh bundle with the model."""
    model, engine = checkpoint.model, OnnxEngine(bundle, "cpu")
    rows = run_gate(model, checkpoint.tokenizer, engine, "fp32", steps, progress)
    if GraphGenerator.exists(bundle):
        rows.append(
            compare_generate(
                model, checkpoint.tokenizer, engine, steps, TOLERANCE["fp32"], progress
            )
        )
    return ParityReport(tuple(rows))


def check_target(target: Path) -> None:
    """Only a bundle, or nothing, may be replaced.

    Raises:
        UsageError: There is something else.
    """
    if not target.exists() and not target.is_symlink():
        return
    if target.is_symlink() or not target.is_dir():
        raise UsageError(f"{target} is not a folder; choose another --out")
    names = {entry.name for entry in target.iterdir()}
    foreign = sorted(names - _FILES)
    if names and (BUNDLE_FILE not in names or foreign):
        what = f"has other files in it ({', '.join(foreign[:3])})" if foreign else "is no bundle"
        raise UsageError(f"{target} {what} and will not be replaced; choose another --out")


def _silent(_: str) -> None:
    """Nobody wants to be told."""


def _write_files(
    checkpoint: Checkpoint, folder: Path, options: ExportOptions, note: Callable[[str], object]
) -> dict[str, Any]:
    """Write all files but ``bundle.json`` and the card; return the manifest."""
    model, tokenizer = checkpoint.model, checkpoint.tokenizer
    config, settings = model.config, _generation_config(tokenizer)
    write_atomic(folder / "tokenizer.json", tokenizer.source.encode())
    _write_json(folder / "generation_config.json", settings)
    weights = weights_sha256(model)
    tokenizer_hash = sha256_bytes(tokenizer.source.encode())
    files = ["tokenizer.json", "generation_config.json"]
    graphs = _graphs(checkpoint, options, note)
    if options.genai:
        note("genai")
        both = (scatter_read(graphs["decode"]), graphs["prefill"])
        files += write_genai(checkpoint, folder, both, sampling=settings)
    entries: dict[str, dict[str, Any]] = {}
    for kind, graph in graphs.items():
        write_metadata(graph, kind, config, weights, tokenizer_hash)
        path = folder / f"{kind}.onnx"
        write_atomic(path, graph.SerializeToString(deterministic=True))
        entries[kind] = {"file": path.name, "sha256": sha256_file(path)}
    if options.static_batch is not None:
        entries["decode_static"]["batch"] = options.static_batch
    if options.onnxruntime_only:
        for kind in entries.keys() & {"decode", "decode_static"}:
            entries[kind]["only"] = ONNXRUNTIME
    if options.last_logits:
        entries["prefill"]["logits"] = "last"
    note("golden record")
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "precision": "fp32",
        "model": config.to_dict(),
        "state": state_table_json(state_table(config)),
        "graphs": entries,
        "files": {name: sha256_file(folder / name) for name in dict.fromkeys(files)},
        "weights_sha256": weights,
        "tokenizer_sha256": tokenizer_hash,
        "exporter": exporter_versions(),
        "training": checkpoint.training,
        "golden": golden_record(model, tokenizer),
    }


def _graphs(
    checkpoint: Checkpoint, options: ExportOptions, note: Callable[[str], object]
) -> dict[str, onnx.ModelProto]:
    """Every graph that was asked for, by kind."""
    note("decode.onnx")
    decode = decode_graph(checkpoint.model, options.opset)
    note("prefill.onnx")
    prefill = prefill_graph(checkpoint.model, options.opset, options.last_logits)
    fast = scatter_read(decode)
    if options.onnxruntime_only:
        decode = fast
    graphs = {"decode": decode, "prefill": prefill}
    if options.generate:
        note("generate.onnx")
        graphs["generate"] = generate_graph(fast)
    if options.static_batch is not None:
        graphs["decode_static"] = copy.deepcopy(decode)
        fix_batch(graphs["decode_static"], options.static_batch)
    return graphs


def _generation_config(tokenizer: Tokenizer) -> dict[str, Any]:
    start = tokenizer.encode("\n") or tokenizer.encode(" ") or [0]
    return {
        "do_sample": True,
        "temperature": 0.8,
        "top_k": 0,
        "top_p": 1.0,
        "max_new_tokens": 200,
        "bos_token_id": start[0],
    }


def _write_json(path: Path, value: dict[str, Any]) -> None:
    write_atomic(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())

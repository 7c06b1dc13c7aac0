"""Write a bundle: build the graphs, run the parity gate, and put the folder in place."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx

from ...runtime.bundle import WEIGHTS_FILE, Bundle
from ...runtime.engines.native.library import library_path
from ...runtime.errors import UsageError
from ...runtime.files import replace_folder, sha256_bytes, sha256_file, write_atomic
from ...runtime.start_state import read_start_state
from ...runtime.state_table import FORMAT, FORMAT_VERSION, state_table_json
from ...runtime.text_sample import TEXT_SAMPLE_FILE
from ...train.checkpoint import Checkpoint, weights_sha256
from ...train.own_parts import described, own_parts
from ...train.teach import Taught
from ..graphs.build import decode_graph, fix_batch, prefill_graph
from ..graphs.generate import generate_graph
from ..graphs.metadata import exporter_versions, state_table, write_metadata
from ..graphs.scatter_read import read_by_scatter
from ..options import ExportOptions
from ..parity.comparison import Comparison
from ..parity.engines import measuring_engine, open_engines
from ..parity.gate import gate_work, run_gate
from ..parity.golden import golden_record
from ..parity.report import ParityReport
from .defaults import generation_config, sampling_of
from .folder import ONNXRUNTIME, check_target, write_card, write_manifest
from .genai import write_genai
from .json_file import write_json
from .start import measure_taught, of_chosen_size, taught_entry, taught_for, write_start_state
from .weights import weights_bytes

__all__ = ["build_graphs", "export_work", "write_bundle"]


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
        target: The folder to write; replaces an older bundle as a whole.
        steps: Tokens of real text that the gate reads with each graph; overrides the options.
        progress: Called with the number of tokens that the gate has read.
        options: What to write.
        note: Called with the name of each phase; a graph takes some seconds to build.

    Returns:
        The gate's figures.

    Raises:
        UsageError: ``target`` exists and is not a bundle, the options do not fit the model, or the
            model has parts of the user's own.
        CorpusError: A text to teach cannot be used.
        ParityError: A graph fails the gate; nothing was written.
    """
    options = options or ExportOptions()
    if steps is not None:
        options = dataclasses.replace(options, parity_steps=steps)
    check_target(target)
    if own := own_parts(checkpoint.model):
        raise UsageError(
            f"the model has parts of your own, which cannot be exported: {described(own)}; leave "
            "them out and change rillet's parts by their settings, or use the model in Python"
        )
    kept = {**sampling_of(checkpoint.training), **options.sampling}
    options = dataclasses.replace(options, **kept)
    note = note or (lambda _: None)
    trained = checkpoint.model.config
    checkpoint = of_chosen_size(checkpoint, options)
    # Where nothing can be written, we know before the work begins.
    with replace_folder(target) as folder:
        taught = taught_for(checkpoint, options, target, note)
        manifest = _write_files(checkpoint, folder, options, taught, note)
        if checkpoint.model.config != trained:
            manifest["trained_memory"] = trained.memory
        write_manifest(folder, manifest)
        bundle = Bundle.open(folder)
        rows = _gate(checkpoint, bundle, options, progress)
        report = ParityReport(tuple(rows)).check()
        manifest["parity"] = report.to_list()
        if taught is not None:
            note("measuring")
            manifest["taught"] |= measure_taught(
                measuring_engine(bundle), checkpoint.text_sample, taught
            )
        write_manifest(folder, manifest)
        write_card(folder, target.name, manifest)
    return report


def export_work(options: ExportOptions) -> int:
    """Tokens that the gate of an export reads, for a progress bar."""
    steps, taught = options.parity_steps, bool(options.texts)
    native = 0 if library_path() is None else gate_work("native", steps, False, taught=taught)
    if options.native_only:
        return native
    return gate_work("cpu", steps, options.generate, taught=taught) + native


def _gate(
    checkpoint: Checkpoint,
    bundle: Bundle,
    options: ExportOptions,
    progress: Callable[[int], object] | None,
) -> list[Comparison]:
    """Compare the graphs with PyTorch, and the weights where the native engine can run them."""
    return [
        row
        for engine in open_engines(bundle)
        for row in run_gate(
            checkpoint.model,
            checkpoint.tokenizer,
            engine,
            steps=options.parity_steps,
            progress=progress,
            sample=checkpoint.text_sample,
        )
    ]


def _write_files(
    checkpoint: Checkpoint,
    folder: Path,
    options: ExportOptions,
    taught: Taught | None,
    note: Callable[[str], object],
) -> dict[str, Any]:
    """Write every file except ``bundle.json`` and the card; return the manifest."""
    model, tokenizer = checkpoint.model, checkpoint.tokenizer
    config, sampling = model.config, generation_config(tokenizer, options.sampling)
    write_atomic(folder / "tokenizer.json", tokenizer.source.encode())
    write_json(folder / "generation_config.json", sampling)
    weights = weights_sha256(model)
    tokenizer_hash = sha256_bytes(tokenizer.source.encode())
    write_atomic(folder / WEIGHTS_FILE, weights_bytes(model))
    files = ["tokenizer.json", "generation_config.json", WEIGHTS_FILE]
    sample = checkpoint.text_sample if options.text_sample else None
    if sample is not None:
        write_atomic(folder / TEXT_SAMPLE_FILE, json.dumps(sample.to_dict()).encode())
        files.append(TEXT_SAMPLE_FILE)
    table, start = state_table(config), None
    if taught is not None:
        files.append(write_start_state(folder, taught))
        start = read_start_state(folder / files[-1], table, config.vocab_size)
    graphs = {} if options.native_only else build_graphs(checkpoint, options, note)
    if options.genai:
        note("genai")
        both = (read_by_scatter(graphs["decode"]), graphs["prefill"])
        files += write_genai(checkpoint, folder, both, sampling=sampling)
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
        "state": state_table_json(table),
        "graphs": entries,
        "files": {name: sha256_file(folder / name) for name in dict.fromkeys(files)},
        "weights_sha256": weights,
        "tokenizer_sha256": tokenizer_hash,
        "exporter": exporter_versions(),
        "arguments": {"export": options.arguments()},
        "training": checkpoint.training,
        **({} if taught is None else {"taught": taught_entry(taught)}),
        "golden": golden_record(model, tokenizer, sample, start),
    }


def build_graphs(
    checkpoint: Checkpoint, options: ExportOptions, note: Callable[[str], object]
) -> dict[str, onnx.ModelProto]:
    """Build every graph that the options ask for, by kind."""
    note("decode.onnx")
    decode = decode_graph(checkpoint.model, options.opset)
    note("prefill.onnx")
    prefill = prefill_graph(checkpoint.model, options.opset, options.last_logits)
    fast = read_by_scatter(decode)
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

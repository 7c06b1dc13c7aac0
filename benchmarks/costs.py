"""The costs of each model on ONNX Runtime: file size, state, memory and time per token.

    python benchmarks/costs.py CORPUS [--presets nano,micro,small] [--bursts 30] [--tokens N]
        [--json FILE]

Our models are the trained presets of ``models/checkpoints`` in every precision, each quantized by
its default method. Their losses are measured on the part of CORPUS that training held out: that of
fp32 by PyTorch at the end of training, over all of it; the rise of the others above fp32 over its
first N tokens, or all. The baselines are the step graphs of models as large as ``nano``, and of a
transformer of nanoGPT's size. The same code steps all of them on one thread in one run; they take
turns in short bursts, and each figure is the fastest burst in CPU time of the thread. Compare
ratios.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
from pathlib import Path
from typing import Any

import onnx
import torch

from lib.baselines import matched_gru
from lib.bursts import least_times
from lib.kv_transformer import NANOGPT, make_weights, steps_with_full_cache
from lib.min_gru import matched_min_gru
from lib.nano import MODELS, matched_transformer, nano_size, training_summary
from lib.plain_export import export_recurrent
from lib.process import measure_fresh_process
from lib.results import write_results
from lib.samples import sample_tokens
from lib.stepping import Steps
from lib.torch_check import check_against_torch
from rillet.export import ExportOptions, quantize
from rillet.export.bundle.writer import write_bundle
from rillet.export.quantization.conversions import PRECISIONS
from rillet.runtime.bundle import Bundle
from rillet.train import load_checkpoint

STEPS, FILLED = 64, 2048
"""Tokens per burst, and tokens read before the first one: a memory of 1,024 is full."""

CONTEXTS = {"gpt": (64, 256, 1024), "nanogpt": (256, 1024)}
"""Tokens in the caches of the transformers."""

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--presets", default="nano,micro,small")
    parser.add_argument("--bursts", type=int, default=30)
    parser.add_argument("--tokens", type=int)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows: dict[str, Row] = {}
    bursts: dict[str, Steps] = {}
    with tempfile.TemporaryDirectory() as folder:
        for preset in arguments.presets.split(","):
            add_ours(rows, bursts, preset, arguments.corpus, arguments.tokens, Path(folder))
    add_recurrent(rows, bursts)
    add_transformers(rows, bursts)
    # Keep the garbage collector from scanning what PyTorch and onnx loaded during a burst.
    gc.collect()
    gc.freeze()
    times = least_times(bursts, arguments.bursts)
    fastest = times[next(iter(times))]
    for name, row in rows.items():
        row["us"], row["ratio"] = times[name], times[name] / fastest
        print(name, json.dumps(row), flush=True)
    write_results(arguments.json, {"bursts": arguments.bursts, "rows": rows})


def add_ours(
    rows: dict[str, Row],
    bursts: dict[str, Steps],
    preset: str,
    corpus: Path,
    tokens: int | None,
    folder: Path,
) -> None:
    """Add a preset in every precision, with its loss."""
    checkpoint = MODELS / "checkpoints" / f"shakespeare-{preset}"
    summary = training_summary(preset)
    source = MODELS / model_name(preset, "fp32")
    if not source.exists():
        source = folder / preset
        write_bundle(load_checkpoint(checkpoint), source, options=ExportOptions(parity_steps=300))
    bundles = {"fp32": Bundle.open(source)}
    for precision in PRECISIONS:
        print(f"{preset}, {precision}", flush=True)
        bundles[precision] = quantize(
            source, folder / f"{preset}-{precision}", precision, text=corpus, tokens=tokens
        )
    for precision, bundle in bundles.items():
        name = f"{preset}, {precision}"
        quantization = bundle.manifest.get("quantization")
        rise = quantization["loss"] - quantization["loss_fp32"] if quantization else 0.0
        burst = filled(onnx.load(bundle.graph("decode")), bundle.vocab_size)
        files = {path.name: path.stat().st_size for path in sorted(bundle.path.iterdir())}
        bursts[name] = burst
        rows[name] = {
            "kind": "ours",
            "preset": preset,
            "precision": precision,
            "parameters": summary["parameters"],
            "shipped": (MODELS / model_name(preset, precision)).exists(),
            "loss": summary["held_out"]["loss"] + rise,
            "rise": rise,
            "rise_tokens": quantization["tokens"] if quantization else None,
            "method": quantization["method"] if quantization else None,
            "bytes": files["decode.onnx"],
            "prefill_bytes": files["prefill.onnx"],
            "state_bytes": burst.state_bytes,
            "process": measure_fresh_process(bundle.path, 2)
            if precision in ("fp32", "int8")
            else None,
        }
    # Training measures this at its end.
    rows[f"{preset}, fp32"]["without_memory"] = summary["held_out"]["without_memory"]


def model_name(preset: str, precision: str) -> str:
    """The name of a model's folder in :data:`.MODELS`, whether or not it is shipped."""
    return f"shakespeare-{preset}" + ("" if precision == "fp32" else f"-{precision}")


def filled(graph: onnx.ModelProto, vocab_size: int) -> Steps:
    """A burst over a full memory."""
    tokens = sample_tokens(vocab_size)
    burst = Steps(graph, tokens[:STEPS])
    burst.run_all(tokens[:FILLED])
    return burst


def add_recurrent(rows: dict[str, Row], bursts: dict[str, Steps]) -> None:
    """Add a GRU and a minGRU of ``nano``'s size, each checked against PyTorch."""
    size, vocab = nano_size()
    for name, model in (
        ("gru", matched_gru(size, vocab).eval()),
        ("mingru", matched_min_gru(size, vocab).eval()),
    ):
        graph = export_recurrent(model)
        tokens = sample_tokens(vocab)
        check_against_torch(name, Steps(graph, tokens[:STEPS]), model, tokens)
        burst = filled(graph, vocab)
        bursts[name] = burst
        rows[name] = {
            "kind": name,
            "parameters": model.parameter_count(),
            "bytes": len(graph.SerializeToString()),
            "state_bytes": burst.state_bytes,
        }


def add_transformers(rows: dict[str, Row], bursts: dict[str, Steps]) -> None:
    """Add transformers of ``nano``'s and nanoGPT's size, with caches of several lengths."""
    for kind, shape in (("gpt", matched_transformer()), ("nanogpt", NANOGPT)):
        weights = make_weights(shape)
        for context in CONTEXTS[kind]:
            name = f"{kind}, {context:,} tokens"
            burst = steps_with_full_cache(context, weights, sample_tokens(shape.vocabulary), shape)
            bursts[name] = burst
            rows[name] = {
                "kind": kind,
                "context": context,
                "parameters": sum(value.size for value in weights.values()),
                # The head is the embedding transposed: the graph holds it twice, a device once.
                "bytes": 4 * sum(value.size for value in weights.values()),
                "state_bytes": burst.state_bytes,
            }


if __name__ == "__main__":
    main()

"""What each model costs on ONNX Runtime: its file, its state, its memory and its time per token.

    python benchmarks/costs.py CORPUS [--presets nano,micro,small] [--bursts 30] [--tokens N]
        [--json FILE]

Ours: every preset that was trained (``models/checkpoints``), in every precision, each by its
default method, with the rise of its loss above fp32's on the part of CORPUS that training held out
(the first N tokens of it, or all). The loss itself is PyTorch's, over all of that part, at the end
of training. Beside them the step graphs of the baselines, which are as large as ``nano``, and of
a transformer of nanoGPT's size. All are stepped by the same code on one thread, in one run; they
take turns in short bursts, and the least of each, in the thread's own time, is the figure. Compare
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

import kv_transformer
import machine
from baselines import matched_gpt, matched_gru
from decode import transformer
from footprint import footprint
from graphs import check, some_tokens
from min_gru import matched_min_gru
from plain_export import export_recurrent
from rillet.export import ExportOptions, quantize
from rillet.export.bundle.writer import write_bundle
from rillet.export.quantization.conversions import PRECISIONS
from rillet.runtime.bundle import Bundle
from rillet.train import load_checkpoint
from stepping import Steps, least_times

MODELS = Path(__file__).parents[1] / "models"
STEPS, FILLED = 64, 2048
"""Tokens of a burst, and tokens that were read before: the memory of 1,024 is full."""

CONTEXTS = {"gpt": (64, 256, 1024), "nanogpt": (256, 1024)}
"""Tokens in the transformers' caches."""

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
    # What PyTorch and onnx have loaded is not to be collected within a burst.
    gc.collect()
    gc.freeze()
    times = least_times({**bursts}, arguments.bursts)
    fastest = times[next(iter(times))]
    for name, row in rows.items():
        row["us"], row["ratio"] = times[name], times[name] / fastest
        print(name, json.dumps(row), flush=True)
    machine.write(arguments.json, {"bursts": arguments.bursts, "rows": rows})


def add_ours(
    rows: dict[str, Row],
    bursts: dict[str, Steps],
    preset: str,
    corpus: Path,
    tokens: int | None,
    folder: Path,
) -> None:
    """A preset in every precision, with what text costs it."""
    checkpoint = MODELS / "checkpoints" / f"shakespeare-{preset}"
    summary = json.loads((checkpoint / "summary.json").read_text())
    source = MODELS / own_name(preset, "fp32")
    if not source.exists():
        source = folder / preset
        write_bundle(load_checkpoint(checkpoint), source, options=ExportOptions(parity_steps=300))
    made = {"fp32": Bundle.open(source)}
    for precision in PRECISIONS:
        print(f"{preset}, {precision}", flush=True)
        made[precision] = quantize(
            source, folder / f"{preset}-{precision}", precision, text=corpus, tokens=tokens
        )
    for precision, bundle in made.items():
        name = f"{preset}, {precision}"
        measured = bundle.manifest.get("quantization")
        rise = measured["loss"] - measured["loss_fp32"] if measured else 0.0
        burst = filled(onnx.load(bundle.graph("decode")), bundle.vocab_size)
        files = {path.name: path.stat().st_size for path in sorted(bundle.path.iterdir())}
        rows[name], bursts[name] = {
            "kind": "ours",
            "preset": preset,
            "precision": precision,
            "parameters": summary["parameters"],
            "shipped": (MODELS / own_name(preset, precision)).exists(),
            "loss": summary["held_out"]["loss"] + rise,
            "rise": rise,
            "rise_tokens": measured["tokens"] if measured else None,
            "method": measured["method"] if measured else None,
            "bytes": files["decode.onnx"],
            "prefill_bytes": files["prefill.onnx"],
            "state_bytes": state_bytes(burst),
            "process": footprint(bundle.path, 2) if precision in ("fp32", "int8") else None,
        }, burst  # fmt: skip
    # Measured by training itself, at its end.
    rows[f"{preset}, fp32"]["without_memory"] = summary["held_out"]["without_memory"]


def own_name(preset: str, precision: str) -> str:
    """The folder of a model in :data:`MODELS`, were it shipped."""
    return f"shakespeare-{preset}" + ("" if precision == "fp32" else f"-{precision}")


def filled(graph: onnx.ModelProto, vocab_size: int) -> Steps:
    """A burst after so many tokens that a memory is full."""
    tokens = some_tokens(vocab_size)
    burst = Steps(graph, tokens[:STEPS])
    burst.run_all(tokens[:FILLED])
    return burst


def add_recurrent(rows: dict[str, Row], bursts: dict[str, Steps]) -> None:
    """GRU and minGRU of as many parameters as ``nano``, each against PyTorch first."""
    size, vocab = nano_size()
    for name, make in (("gru", matched_gru), ("mingru", matched_min_gru)):
        model = make(size, vocab).eval()
        graph = export_recurrent(model)
        check(Steps(graph, some_tokens(vocab)[:STEPS]), model, some_tokens(vocab), name)
        burst = filled(graph, vocab)
        rows[name], bursts[name] = {
            "kind": name,
            "parameters": model.parameter_count(),
            "bytes": len(graph.SerializeToString()),
            "state_bytes": state_bytes(burst),
        }, burst  # fmt: skip


def add_transformers(rows: dict[str, Row], bursts: dict[str, Steps]) -> None:
    """Transformers of ``nano``'s parameters and of nanoGPT's, with caches of several sizes."""
    for kind, shape in (("gpt", matched_shape()), ("nanogpt", kv_transformer.NANOGPT)):
        weights = kv_transformer.make_weights(shape)
        for context in CONTEXTS[kind]:
            name = f"{kind}, {context:,} tokens"
            burst = transformer(context, weights, some_tokens(shape.vocabulary), shape)
            rows[name], bursts[name] = {
                "kind": kind,
                "context": context,
                "parameters": sum(value.size for value in weights.values()),
                # The head is the embedding transposed: the graph holds it twice, a device once.
                "bytes": 4 * sum(value.size for value in weights.values()),
                "state_bytes": state_bytes(burst),
            }, burst  # fmt: skip


def nano_size() -> tuple[int, int]:
    """Trained parameters and vocabulary of the shipped ``nano``."""
    summary = json.loads((MODELS / "checkpoints/shakespeare-nano/summary.json").read_text())
    return summary["parameters"], Bundle.open(MODELS / "shakespeare-nano").vocab_size


def matched_shape() -> kv_transformer.Shape:
    """That of the transformer which has as many parameters as ``nano``."""
    size, vocab = nano_size()
    gpt = matched_gpt(size, vocab, 256)
    return kv_transformer.Shape(
        len(gpt.blocks), gpt.blocks[0].heads, gpt.tokens.embedding_dim, vocab, gpt.context
    )


def state_bytes(burst: Steps) -> int:
    """What a stream keeps between two tokens."""
    return sum(value.nbytes for value in burst.sides[0].values())


if __name__ == "__main__":
    main()

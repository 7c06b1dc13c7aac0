"""The time per token of each graph, beside the alternatives.

    python benchmarks/graphs.py [--json FILE] [--bursts 40] [--preset nano] [--checkpoint RUN]

One thread, two swapped bindings; the greedy choice is included unless a row names a sampler. A
preset's model has fresh weights, since the time does not depend on them. All contenders take turns
in short bursts in one run, and each figure is the fastest burst in CPU time of the thread: compare
ratios.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import torch

from lib.arrays import TokenArray
from lib.baselines import matched_gru
from lib.bursts import Burst, least_times, torch_burst
from lib.generation import InGraphGeneration, check_same_tokens, host_generation
from lib.plain_export import export_recurrent, plain_graph
from lib.results import write_results
from lib.samples import fresh_model, sample_tokens
from lib.stepping import Steps
from lib.torch_check import Forward, check_against_torch
from rillet.export.graphs.build import decode_graph, prefill_graph
from rillet.export.graphs.decode_step import DecodeStep
from rillet.export.graphs.generate import generate_graph
from rillet.export.graphs.scatter_read import read_by_scatter
from rillet.runtime import SamplingParams
from rillet.train import DualCNN, load_checkpoint
from rillet.train.config.presets import PRESETS

CAPACITIES = (0, 256, 1024, 4096)
"""Memories to measure beside the model's own."""

STEPS, TORCH_STEPS = 32, 2
"""Tokens per burst: a few milliseconds, less than the scheduler gives another program."""

SAMPLING = {
    "greedy": SamplingParams(temperature=0),
    "temperature 0.8": SamplingParams(temperature=0.8, seed=7),
    "temperature 0.8, top-k 20": SamplingParams(temperature=0.8, top_k=20, seed=7),
    "temperature 0.8, top-p 0.9": SamplingParams(temperature=0.8, top_p=0.9, seed=7),
    "temperature 0.8, top-k 20, top-p 0.9": SamplingParams(
        temperature=0.8, top_k=20, top_p=0.9, seed=7
    ),
}
GENERATED = 32
"""Tokens per call of the generating graph."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--bursts", type=int, default=40)
    parser.add_argument("--preset", choices=PRESETS, default="nano")
    parser.add_argument("--checkpoint", type=Path, help="a run, instead of a preset's fresh model")
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.checkpoint is None:
        model = fresh_model(PRESETS[arguments.preset])
    else:
        model = load_checkpoint(arguments.checkpoint).model.eval()
    figures = measure(model, arguments.bursts, not arguments.no_compile)
    show(figures)
    write_results(arguments.json, figures)


def measure(
    model: DualCNN, bursts: int, compiled: bool, capacities: Sequence[int] = CAPACITIES
) -> dict[str, Any]:
    """Time all rows in turn.

    Args:
        model: The model.
        bursts: Bursts of each row.
        compiled: Whether to include ``torch.compile``.
        capacities: Memories to measure beside the model's own.

    Returns:
        ``microseconds`` and ``notes`` by row, and ``ratios`` by comparison.
    """
    tokens = sample_tokens(model.config.vocab_size)
    decode = decode_graph(model)
    rows: dict[str, Burst] = {}
    notes: dict[str, str] = {}
    capacity = model.config.memory
    for size in sorted({capacity, *(capacities if capacity else ())}):
        # A trained model has a memory of one size; the others are fresh.
        other = model if size == capacity else fresh_model(model.config.replace(memory=size))
        if size in (0, capacity):
            name = f"plain export, memory {size:,}"
            _add_checked(rows, notes, name, other, plain_graph(other), tokens)
        graph = decode if size == capacity else decode_graph(other)
        _add_checked(rows, notes, f"decode.onnx, memory {size:,}", other, graph, tokens)
    if capacity:
        name, fast = f"decode.onnx --onnxruntime-only, memory {capacity:,}", read_by_scatter(decode)
        _add_checked(rows, notes, name, model, fast, tokens)
    for last in (False, True):
        graph = prefill_graph(model, last_logits=last)
        for length in (512, 256):
            name = f"prefill.onnx, T = {length}" + (", last logits" if last else "")
            rows[name] = _warm_steps(graph, tokens, model, length, last)
    _add_generation(rows, model, decode, tokens)
    rows["PyTorch eager"] = _torch_burst(model, model, tokens)
    if compiled:
        _add_compiled(rows, notes, model, tokens)
    gru = matched_gru(model.parameter_count(), model.config.vocab_size).eval()
    gru_step = Steps(export_recurrent(gru), tokens[:STEPS])
    check_against_torch("the GRU", gru_step, gru, tokens)
    rows["GRU of equal parameters, onnxruntime"] = gru_step
    notes["GRU of equal parameters, onnxruntime"] = (
        f"{gru.parameter_count():,} trained, ours {model.parameter_count():,}"
    )
    times = least_times(rows, bursts)
    ratios = _compare(times, capacity)
    return {"microseconds": times, "ratios": ratios, "notes": notes, "bursts": bursts}


def _warm_steps(
    graph: onnx.ModelProto,
    tokens: TokenArray,
    model: DualCNN,
    length: int = 1,
    last: bool = False,
) -> Steps:
    """A burst over a full memory."""
    burst = Steps(graph, tokens[: STEPS if length == 1 else length], length, last=last)
    calls = -(-model.config.memory // length)
    burst.run_all(tokens[: calls * length] if calls else tokens[:length])
    return burst


def _add_checked(
    rows: dict[str, Burst],
    notes: dict[str, str],
    name: str,
    model: DualCNN,
    graph: onnx.ModelProto,
    tokens: TokenArray,
) -> None:
    """Add a row for a step graph that computes what PyTorch computes."""
    check_against_torch(name, Steps(graph, tokens[:STEPS]), model, tokens)
    rows[name], notes[name] = _warm_steps(graph, tokens, model), f"{len(graph.graph.node)} nodes"


def _add_generation(
    rows: dict[str, Burst], model: DualCNN, decode: onnx.ModelProto, tokens: TokenArray
) -> None:
    """Add rows for K tokens per call, and for the same tokens drawn by the host's sampler."""
    graph = generate_graph(read_by_scatter(decode))
    for name, params in SAMPLING.items():
        check_same_tokens(graph, decode, params, int(tokens[0]), GENERATED)
        inside = InGraphGeneration(graph, params, GENERATED, calls=STEPS // GENERATED)
        for _ in range(-(-model.config.memory // STEPS)):
            inside()  # fills the memory
        rows[f"generate.onnx, {name}"] = inside
        stepped = _warm_steps(decode, tokens, model)
        host = host_generation(stepped, params, STEPS)
        rows[f"decode.onnx and the host's sampler, {name}"] = host


def _add_compiled(
    rows: dict[str, Burst], notes: dict[str, str], model: DualCNN, tokens: TokenArray
) -> None:
    """Add rows for ``torch.compile`` of the model's step and of its decode form."""
    one, plain = torch.ones(1), torch.compile(model, dynamic=False)
    step = torch.compile(DecodeStep(model).eval(), dynamic=False)
    forms: dict[str, Forward] = {
        "torch.compile": plain,
        "torch.compile of decode.onnx's form": lambda token, state: step(token, one, state),
    }
    for name, form in forms.items():
        try:
            rows[name] = _torch_burst(model, form, tokens)
        except Exception as error:  # most likely there is no C compiler; its exceptions vary
            notes[name] = f"failed: {str(error).strip().splitlines()[0]}"


def _torch_burst(model: DualCNN, step: Forward, tokens: TokenArray) -> Burst:
    burst = torch_burst(step, model.zero_state(), torch.from_numpy(tokens[:TORCH_STEPS]))
    burst()  # compiles
    return burst


def _compare(times: dict[str, float], capacity: int) -> dict[str, float]:
    """The ratios of interest."""
    step, bare = times[f"decode.onnx, memory {capacity:,}"], times.get("decode.onnx, memory 0")
    ratios = {}
    for name, value in times.items():
        kind, _, label = name.partition(", ")
        if kind == "plain export":
            ratios[f"decode.onnx / {name}"] = times[f"decode.onnx, {label}"] / value
        elif kind == "prefill.onnx":
            ratios[f"{name} / decode.onnx"] = value / step
        elif kind == "generate.onnx":
            stepped = f"decode.onnx and the host's sampler, {label}"
            ratios[f"{name} / stepping"] = value / times[stepped]
        elif label.startswith("memory") and bare is not None and value != bare:
            ratios[f"{name} / memory 0"] = value / bare
    return ratios


def show(figures: dict[str, Any]) -> None:
    print(f"{'':58} {'µs a token':>10}")
    for name, value in figures["microseconds"].items():
        print(f"{name:58} {value:10.1f}  {figures['notes'].get(name, '')}".rstrip())
    for name, note in figures["notes"].items():
        if name not in figures["microseconds"]:
            print(f"{name:58} {note}")
    print()
    for name, value in figures["ratios"].items():
        print(f"{name:72} {value:5.2f}")


if __name__ == "__main__":
    main()

"""What each graph costs a token, beside what one would use instead.

    python benchmarks/graphs.py [--json FILE] [--bursts 40] [--preset nano] [--checkpoint RUN]

One thread, two swapped bindings, the greedy choice included but where a row names a sampler.
A preset's model has fresh weights: the time does not depend on them. Everything takes turns in
short bursts in one run, and the least of each, in the thread's own time, is the figure: compare
ratios.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor

import machine
from baselines import matched_gru
from generating import Generation, check_same_tokens, host_sampler
from plain_export import export_recurrent, plain_graph
from rillet.export.graphs.build import decode_graph, prefill_graph
from rillet.export.graphs.decode_step import DecodeStep
from rillet.export.graphs.generate import generate_graph
from rillet.export.graphs.scatter_read import read_by_scatter
from rillet.runtime import SamplingParams
from rillet.train import DualCNN, DualCNNConfig, builtin_corpus, load_checkpoint
from rillet.train.config.presets import PRESETS
from stepping import Burst, Steps, least_times

CAPACITIES = (0, 256, 1024, 4096)
STEPS, TORCH_STEPS = 32, 2
"""Tokens in a burst: some milliseconds, less than other work is given a core for at a time."""
TOLERANCE = 1e-3
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
"""Tokens that one call of the generating graph draws."""


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
        model = make_model(PRESETS[arguments.preset])
    else:
        model = load_checkpoint(arguments.checkpoint).model.eval()
    figures = measure(model, arguments.bursts, not arguments.no_compile)
    show(figures)
    machine.write(arguments.json, figures)


def measure(
    model: DualCNN, bursts: int, compiled: bool, capacities: Sequence[int] = CAPACITIES
) -> dict[str, Any]:
    """Time everything in turn.

    Args:
        model: The model.
        bursts: Bursts of each row.
        compiled: Whether to compile PyTorch's step.
        capacities: Memories to measure beside the model's own.

    Returns:
        ``microseconds`` by row, ``ratios`` by what is compared, and ``notes``.
    """
    tokens = some_tokens(model.config.vocab_size)
    decode = decode_graph(model)
    rows: dict[str, Burst] = {}
    notes: dict[str, str] = {}
    capacity = model.config.memory
    for size in sorted({capacity, *(capacities if capacity else ())}):
        # Fresh models: a trained one has a memory of one size.
        other = model if size == capacity else make_model(model.config.replace(memory=size))
        if size in (0, capacity):
            add_plain(rows, notes, other, tokens)
        graph = decode if size == capacity else decode_graph(other)
        add_step(rows, notes, other, graph, tokens)
    if capacity:
        name, fast = f"decode.onnx --onnxruntime-only, memory {capacity:,}", read_by_scatter(decode)
        check(Steps(fast, tokens[:STEPS]), model, tokens, name)
        rows[name], notes[name] = steps(fast, tokens, model), f"{len(fast.graph.node)} nodes"
    for last in (False, True):
        graph = prefill_graph(model, last_logits=last)
        for length in (512, 256):
            name = f"prefill.onnx, T = {length}" + (", last logits" if last else "")
            rows[name] = steps(graph, tokens, model, length, last)
    add_generation(rows, model, decode, tokens)
    rows["PyTorch eager"] = _torch_burst(model, model, tokens)
    if compiled:
        add_compiled(rows, notes, model, tokens)
    gru = matched_gru(model.parameter_count(), model.config.vocab_size).eval()
    gru_step = Steps(export_recurrent(gru), tokens[:STEPS])
    check(gru_step, gru, tokens, "the GRU")
    rows["GRU of equal parameters, onnxruntime"] = gru_step
    notes["GRU of equal parameters, onnxruntime"] = (
        f"{gru.parameter_count():,} trained, ours {model.parameter_count():,}"
    )
    times = least_times(rows, bursts)
    ratios = compare(times, capacity)
    return {"microseconds": times, "ratios": ratios, "notes": notes, "bursts": bursts}


def make_model(config: DualCNNConfig) -> DualCNN:
    """A model whose weights are fresh, and its fixed parts fitted to a text."""
    model = DualCNN(config)
    return model.fit(torch.from_numpy(some_tokens(model.config.vocab_size))).eval()


def some_tokens(vocab_size: int) -> np.ndarray:
    """Numbers with the order of a text, whatever the vocabulary."""
    text = np.frombuffer(builtin_corpus()[:100_000].encode(), np.uint8)
    return text.astype(np.int64) % vocab_size


def steps(
    graph: onnx.ModelProto,
    tokens: np.ndarray,
    model: DualCNN,
    length: int = 1,
    last: bool = False,
    **options: Any,
) -> Steps:
    """A burst over a memory that is full, as it is after a while."""
    burst = Steps(graph, tokens[: STEPS if length == 1 else length], length, last=last, **options)
    calls = -(-model.config.memory // length)
    burst.run_all(tokens[: calls * length] if calls else tokens[:length])
    return burst


def add_plain(
    rows: dict[str, Burst], notes: dict[str, str], model: DualCNN, tokens: np.ndarray
) -> None:
    name, graph = f"plain export, memory {model.config.memory:,}", plain_graph(model)
    check(Steps(graph, tokens[:STEPS]), model, tokens, name)
    rows[name], notes[name] = steps(graph, tokens, model), f"{len(graph.graph.node)} nodes"


def add_step(
    rows: dict[str, Burst],
    notes: dict[str, str],
    model: DualCNN,
    graph: onnx.ModelProto,
    tokens: np.ndarray,
) -> None:
    name = f"decode.onnx, memory {model.config.memory:,}"
    check(Steps(graph, tokens[:STEPS]), model, tokens, name)
    rows[name], notes[name] = steps(graph, tokens, model), f"{len(graph.graph.node)} nodes"


def check(
    found: Steps,
    forward: Callable[[Tensor, Any], tuple[Tensor, Any]],
    tokens: np.ndarray,
    name: str,
) -> None:
    """A graph must compute what PyTorch computes, or its time says nothing."""
    state = forward.zero_state() if isinstance(forward, DualCNN) else None
    wanted = []
    with torch.no_grad():
        for token in torch.from_numpy(tokens[:64]):
            logits, state = forward(token.view(1, 1), state)
            wanted.append(logits[0, 0].numpy())
    error = np.abs(found.run_all(tokens[:64]) - np.stack(wanted)).max()
    if not error <= TOLERANCE:
        raise SystemExit(f"{name} differs from PyTorch by {error:.1e}")


def add_generation(
    rows: dict[str, Burst], model: DualCNN, decode: onnx.ModelProto, tokens: np.ndarray
) -> None:
    """K tokens for one call, and the same tokens by stepping and the host's sampler."""
    graph = generate_graph(read_by_scatter(decode))
    for name, params in SAMPLING.items():
        check_same_tokens(graph, decode, params, tokens[0], GENERATED)
        inside = Generation(graph, params, GENERATED, calls=STEPS // GENERATED)
        for _ in range(-(-model.config.memory // STEPS)):
            inside()  # fills the memory
        rows[f"generate.onnx, {name}"] = inside
        stepped = steps(decode, tokens, model)
        rows[f"decode.onnx and the host's sampler, {name}"] = host_sampler(stepped, params, STEPS)


def add_compiled(
    rows: dict[str, Burst], notes: dict[str, str], model: DualCNN, tokens: np.ndarray
) -> None:
    """PyTorch's step compiled, and the form for decoding compiled as well."""
    one, plain = torch.ones(1), torch.compile(model, dynamic=False)
    step = torch.compile(DecodeStep(model).eval(), dynamic=False)
    forms: dict[str, Callable[[Tensor, Any], Any]] = {
        "torch.compile": plain,
        "torch.compile of decode.onnx's form": lambda token, state: step(token, one, state),
    }
    for name, form in forms.items():
        try:
            rows[name] = _torch_burst(model, form, tokens)
        except Exception as error:  # no C compiler, most likely; its exceptions are many
            notes[name] = f"failed: {str(error).strip().splitlines()[0]}"


def _torch_burst(model: DualCNN, run: Callable[[Tensor, Any], Any], tokens: np.ndarray) -> Burst:
    inputs = torch.from_numpy(tokens[:TORCH_STEPS]).view(-1, 1, 1)
    state = model.zero_state()

    def burst() -> int:
        nonlocal state
        with torch.inference_mode():
            for token in inputs:
                logits, state = run(token, state)
                logits.argmax()
        return len(inputs)

    burst()
    return burst


def compare(times: dict[str, float], capacity: int) -> dict[str, float]:
    """The ratios that the figures are there for."""
    step, bare = times[f"decode.onnx, memory {capacity:,}"], times.get("decode.onnx, memory 0")
    found = {}
    for name, value in times.items():
        kind, _, label = name.partition(", ")
        if kind == "plain export":
            found[f"decode.onnx / {name}"] = times[f"decode.onnx, {label}"] / value
        elif kind == "prefill.onnx":
            found[f"{name} / decode.onnx"] = value / step
        elif kind == "generate.onnx":
            stepped = f"decode.onnx and the host's sampler, {label}"
            found[f"{name} / stepping"] = value / times[stepped]
        elif label.startswith("memory") and bare is not None and value != bare:
            found[f"{name} / memory 0"] = value / bare
    return found


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

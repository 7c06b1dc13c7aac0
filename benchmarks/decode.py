"""What a token costs: ours beside its limit, PyTorch, onnxruntime-genai and a transformer.

    python benchmarks/decode.py CHECKPOINT [--json FILE] [--bursts 30] [--tokens 1000000]
                                [--contexts 64,1024,8192,65536]

One thread, one run: everything takes turns in short bursts, and the least of each, in the
thread's own time, is the figure. Compare ratios. `--tokens` also streams so many tokens, and
measures time and memory on the way.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

import kv_transformer
import machine
from footprint import footprint
from graphs import some_tokens
from limits import arithmetic_limit, work_of
from rillet.export import ExportOptions
from rillet.export.bundle.writer import write_bundle
from rillet.runtime import Model, load
from rillet.train import Checkpoint, load_checkpoint
from stepping import Burst, Steps, least_times

STEPS = 64
ROWS = 64
TEMPERATURE = 0.8
BARE = "a bare step, greedy"
TEXT, IN_GRAPH = "text streamed, sampled", "text from generate.onnx, sampled"
BATCH = f"a batch of {ROWS} streams, sampled"
PARTS = (100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--bursts", type=int, default=30)
    parser.add_argument("--tokens", type=int, default=0)
    parser.add_argument("--contexts", default="64,1024,8192,65536")
    arguments = parser.parse_args()
    contexts = [int(part) for part in arguments.contexts.split(",") if part]
    torch.set_num_threads(1)
    checkpoint = load_checkpoint(arguments.checkpoint)
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(checkpoint, Path(folder), arguments.bursts, contexts)
        show(figures)
        if arguments.tokens:
            model = load(Path(folder) / "portable", "cpu")
            figures["long"] = long_stream(model, arguments.tokens)
            show_long(figures["long"])
    machine.write(arguments.json, figures)


def measure(
    checkpoint: Checkpoint, folder: Path, bursts: int, contexts: list[int]
) -> dict[str, Any]:
    """Time everything in turn; figures in microseconds a token."""
    portable = _bundle(checkpoint, folder / "portable", ExportOptions(parity_steps=300, genai=True))
    only = ExportOptions(parity_steps=300, onnxruntime_only=True, generate=False)
    fast = _bundle(checkpoint, folder / "only", only)
    tokens = some_tokens(portable.vocab_size)
    notes: dict[str, str] = {}
    rows: dict[str, Burst] = {
        BARE: bare(portable, tokens),
        f"{BARE}, --onnxruntime-only": bare(fast, tokens),
        TEXT: streamed(portable, tokens),
        IN_GRAPH: streamed(portable, tokens, in_graph=True),
        BATCH: batched(portable, tokens),
        f"{BATCH}, --onnxruntime-only": batched(fast, tokens),
        "PyTorch, a step": torch_steps(checkpoint, tokens),
    }
    genai = genai_steps(folder / "portable", tokens, notes)
    if genai is not None:
        rows["onnxruntime-genai, the same bundle, greedy"] = genai
    weights = kv_transformer.make_weights()
    count = sum(value.size for value in weights.values())
    for context in contexts:
        name = f"transformer of {count / 1e6:.2f} M, {context:,} tokens of context"
        rows[name] = transformer(context, weights, tokens)
    # What PyTorch and onnx have loaded is no part of a device's process: not to be collected.
    gc.collect()
    gc.freeze()
    times = least_times(rows, bursts)
    graph = onnx.load(portable.bundle.graph("decode"))
    work = work_of(graph)
    limit = arithmetic_limit(work)
    return {
        "microseconds": times,
        "ratios": {name: value / times[BARE] for name, value in times.items()},
        "speed_up_of_a_batch": {
            "portable": times[TEXT] / times[BATCH],
            "onnxruntime only": times[TEXT] / times[f"{BATCH}, --onnxruntime-only"],
        },
        "limit": {"bytes": work.bytes, "operations": work.operations, **limit},
        "footprint": footprint(folder / "portable"),
        "notes": notes,
        "bursts": bursts,
    }


def _bundle(checkpoint: Checkpoint, path: Path, options: ExportOptions) -> Model:
    write_bundle(checkpoint, path, options=options)
    return load(path, "cpu")


def bare(model: Model, tokens: np.ndarray) -> Burst:
    """The engine's step and the greedy choice, nothing else; the memory is full."""
    engine, state = model.engine, model.engine.zero_state()
    engine.prefill(tokens[None, :2048], state, last=True)
    ids = list(tokens[:STEPS].reshape(-1, 1))

    def burst() -> int:
        for token in ids:
            engine.step(token, state).argmax()
        return len(ids)

    return burst


def streamed(model: Model, tokens: np.ndarray, in_graph: bool = False) -> Burst:
    """Text from Python, sampling and detokenising included."""
    session = model.session()
    session.feed_tokens(tokens[:2048])
    seeds = iter(range(1 << 30))

    def burst() -> int:
        options = {"temperature": TEMPERATURE, "seed": next(seeds), "max_new_tokens": STEPS}
        if in_graph:
            session.generate(in_graph=True, **options)
        else:
            for _ in session.stream(**options):
                pass
        return STEPS

    return burst


def batched(model: Model, tokens: np.ndarray) -> Burst:
    """Many streams that are stepped together."""
    first, batch = model.session(), model.batch()
    first.feed_tokens(tokens[:2048])
    for seed in range(ROWS):
        batch.join(first.fork(), temperature=TEMPERATURE, seed=seed, max_new_tokens=1 << 30)

    def burst() -> int:
        return len(batch.write())

    return burst


def torch_steps(checkpoint: Checkpoint, tokens: np.ndarray) -> Burst:
    """The model's own forward, a token at a time."""
    model, state = checkpoint.model.eval(), checkpoint.model.zero_state()
    inputs = torch.from_numpy(tokens[:4]).view(-1, 1, 1)

    def burst() -> int:
        nonlocal state
        with torch.inference_mode():
            for token in inputs:
                logits, state = model(token, state)
                logits.argmax()
        return len(inputs)

    return burst


def genai_steps(folder: Path, tokens: np.ndarray, notes: dict[str, str]) -> Burst | None:
    """onnxruntime-genai with its own loop: greedy, a token a call."""
    try:
        import onnxruntime_genai as genai

        notes["onnxruntime-genai"] = version("onnxruntime-genai")
    except (ImportError, PackageNotFoundError):
        notes["onnxruntime-genai"] = "not installed"
        return None
    config = genai.Config(str(folder))
    config.overlay('{"model": {"decoder": {"session_options": {"intra_op_num_threads": 1}}}}')
    model = genai.Model(config)
    params = genai.GeneratorParams(model)
    params.set_search_options(max_length=1 << 22, do_sample=False)
    generator = genai.Generator(model, params)
    generator.append_tokens(tokens[:2048])

    def burst() -> int:
        for _ in range(STEPS):
            generator.generate_next_token()
        return STEPS

    return burst


def transformer(
    context: int,
    weights: kv_transformer.Weights,
    tokens: np.ndarray,
    shape: kv_transformer.Shape = kv_transformer.NANOGPT,
) -> Steps:
    """A step with a full cache of so many tokens; checked against numpy first."""
    graph = kv_transformer.kv_step(context, weights, shape)
    steps = Steps(graph, tokens[: 4 if context < 10_000 else 1])
    random = np.random.default_rng(0)
    caches = {}
    for name, value in steps.sides[0].items():
        if name.startswith("cache_"):
            value[...] = random.standard_normal(value.shape, np.float32)
            caches[name] = value.copy()
    if context <= 1024:
        found = steps.run_all(tokens[:1])[0]
        wanted = kv_transformer.reference_step(int(tokens[0]), 0, caches, weights, shape)
        error = np.abs(found - wanted).max()
        if not error < 1e-3:
            raise SystemExit(f"the transformer differs from its reference by {error:.1e}")
    return steps


def long_stream(model: Model, count: int) -> dict[str, Any]:
    """Stream tokens, and measure time and memory where the position is a power of ten.

    The time is measured beside that of a stream of 3,000 tokens, in bursts in turn: what else the
    machine does meanwhile slows both.
    """
    tokens = some_tokens(model.vocab_size)
    engine, state, young = model.engine, model.engine.zero_state(), model.engine.zero_state()
    ids = list(tokens.reshape(-1, 1))
    engine.prefill(tokens[None, :3000], young, last=True)
    rows, position, began = [], 0, time.perf_counter()
    marks = [mark for mark in PARTS if mark < count] + [count]
    for mark in marks:
        while position < mark:
            engine.step(ids[position % len(ids)], state)
            position += 1
        times = least_times(
            {"old": _steps(engine.step, ids, state), "young": _steps(engine.step, ids, young)}, 40
        )
        rows.append({"position": mark, "us": times["old"], "young_us": times["young"],
                     "resident_mb": _resident()})  # fmt: skip
    values = state.read()
    finite = all(np.isfinite(value).all() for value in values.values())
    return {"rows": rows, "finite": finite, "seconds": time.perf_counter() - began}


def _steps(step: Callable[..., Any], ids: list[Any], state: Any) -> Burst:
    def burst() -> int:
        for token in ids[:STEPS]:
            step(token, state)
        return STEPS

    return burst


def _resident() -> float:
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024 / 1e6


def show(figures: dict[str, Any]) -> None:
    print(f"{'':62} {'µs a token':>10} {'of a step':>9}")
    for name, value in figures["microseconds"].items():
        print(f"{name:62} {value:10.1f} {figures['ratios'][name]:9.2f}")
    limit = figures["limit"]
    print(
        f"\nA step reads {limit['bytes'] / 1e3:,.0f} kB and does {limit['operations'] / 1e3:,.0f} "
        f"thousand operations: {limit['memory']:.1f} µs at {limit['GB/s']:.0f} GB/s, "
        f"{limit['arithmetic']:.1f} µs at {limit['GFLOP/s']:.0f} GFLOP/s."
    )
    for name, value in figures["speed_up_of_a_batch"].items():
        print(f"A batch of {ROWS}, {name}: {value:.2f} times the tokens a second of one stream.")
    if figures["footprint"] is not None:
        print(
            "A fresh process:", ", ".join(f"{k} {v:.0f}" for k, v in figures["footprint"].items())
        )
    for name, note in figures["notes"].items():
        print(f"{name}: {note}")


def show_long(figures: dict[str, Any]) -> None:
    print(f"\n{'position':>12} {'µs a token':>10} {'of a young stream':>18} {'resident MB':>12}")
    for row in figures["rows"]:
        print(
            f"{row['position']:12,} {row['us']:10.1f} {row['us'] / row['young_us']:18.3f} "
            f"{row['resident_mb']:12.1f}"
        )
    print(f"{figures['seconds']:.0f} s; every number of the state is finite: {figures['finite']}")


if __name__ == "__main__":
    main()

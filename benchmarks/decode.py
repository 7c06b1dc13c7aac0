"""The time per token of our model, beside its lower bound, PyTorch, genai and a transformer.

    python benchmarks/decode.py CHECKPOINT [--json FILE] [--bursts 30] [--tokens 1000000]
                                [--contexts 64,1024,8192,65536]

One thread, one run: all contenders take turns in short bursts, and each figure is the fastest burst
in CPU time of the thread. Compare ratios. `--tokens` also streams that many tokens, and measures
time and memory on the way.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from lib.arrays import TokenArray
from lib.bursts import Burst, least_times, torch_burst
from lib.kv_transformer import make_weights, steps_with_full_cache
from lib.process import measure_fresh_process, resident_mb
from lib.results import write_results
from lib.samples import sample_tokens
from lib.step_limits import arithmetic_limit, count_work
from rillet.export import ExportOptions
from rillet.export.bundle.writer import write_bundle
from rillet.runtime import Model, load
from rillet.train import Checkpoint, load_checkpoint

STEPS = 64
ROWS = 64
TEMPERATURE = 0.8
BARE = "a bare step, greedy"
TEXT, IN_GRAPH = "text streamed, sampled", "text from generate.onnx, sampled"
BATCH = f"a batch of {ROWS} streams, sampled"
MARKS = (100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000)
"""Positions at which a long stream is measured."""


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
    write_results(arguments.json, figures)


def measure(
    checkpoint: Checkpoint, folder: Path, bursts: int, contexts: list[int]
) -> dict[str, Any]:
    """Time all contenders in turn; figures are microseconds per token."""
    portable = _bundle(checkpoint, folder / "portable", ExportOptions(parity_steps=300, genai=True))
    only = ExportOptions(parity_steps=300, onnxruntime_only=True, generate=False)
    fast = _bundle(checkpoint, folder / "only", only)
    tokens = sample_tokens(portable.vocab_size)
    notes: dict[str, str] = {}
    rows: dict[str, Burst] = {
        BARE: bare(portable, tokens),
        f"{BARE}, --onnxruntime-only": bare(fast, tokens),
        TEXT: streamed(portable, tokens),
        IN_GRAPH: streamed(portable, tokens, in_graph=True),
        BATCH: batched(portable, tokens),
        f"{BATCH}, --onnxruntime-only": batched(fast, tokens),
        "PyTorch, a step": torch_burst(
            checkpoint.model.eval(), checkpoint.model.zero_state(), torch.from_numpy(tokens[:4])
        ),
    }
    genai = genai_steps(folder / "portable", tokens, notes)
    if genai is not None:
        rows["onnxruntime-genai, the same bundle, greedy"] = genai
    weights = make_weights()
    count = sum(value.size for value in weights.values())
    for context in contexts:
        name = f"transformer of {count / 1e6:.2f} M, {context:,} tokens of context"
        rows[name] = steps_with_full_cache(context, weights, tokens)
    # Exempt what PyTorch and onnx loaded from garbage collection: a device's process lacks it.
    gc.collect()
    gc.freeze()
    times = least_times(rows, bursts)
    graph = onnx.load(portable.bundle.graph("decode"))
    work = count_work(graph)
    limit = arithmetic_limit(work)
    return {
        "microseconds": times,
        "ratios": {name: value / times[BARE] for name, value in times.items()},
        "speed_up_of_a_batch": {
            "portable": times[TEXT] / times[BATCH],
            "onnxruntime only": times[TEXT] / times[f"{BATCH}, --onnxruntime-only"],
        },
        "limit": {"bytes": work.bytes, "operations": work.operations, **limit},
        "footprint": measure_fresh_process(folder / "portable"),
        "notes": notes,
        "bursts": bursts,
    }


def _bundle(checkpoint: Checkpoint, path: Path, options: ExportOptions) -> Model:
    write_bundle(checkpoint, path, options=options)
    return load(path, "cpu")


def bare(model: Model, tokens: TokenArray) -> Burst:
    """The engine's step and the greedy choice alone, over a full memory."""
    engine, state = model.engine, model.engine.zero_state()
    engine.prefill(tokens[None, :2048], state, last=True)
    ids = list(tokens[:STEPS].reshape(-1, 1))

    def burst() -> int:
        for token in ids:
            engine.step(token, state).argmax()
        return len(ids)

    return burst


def streamed(model: Model, tokens: TokenArray, in_graph: bool = False) -> Burst:
    """Text generated from Python, sampling and detokenising included."""
    session = model.session()
    session.feed_tokens(tokens[:2048].tolist())
    seeds = itertools.count()
    options: dict[str, Any] = {"temperature": TEMPERATURE, "max_new_tokens": STEPS}

    def burst() -> int:
        if in_graph:
            session.generate(in_graph=True, seed=next(seeds), **options)
        else:
            for _ in session.stream(seed=next(seeds), **options):
                pass
        return STEPS

    return burst


def batched(model: Model, tokens: TokenArray) -> Burst:
    """Many streams stepped together."""
    first, batch = model.session(), model.batch()
    first.feed_tokens(tokens[:2048].tolist())
    for seed in range(ROWS):
        batch.join(first.fork(), temperature=TEMPERATURE, seed=seed, max_new_tokens=1 << 30)

    def burst() -> int:
        return len(batch.write())

    return burst


def genai_steps(folder: Path, tokens: TokenArray, notes: dict[str, str]) -> Burst | None:
    """onnxruntime-genai with its own loop, greedy, one token per call."""
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


def long_stream(model: Model, count: int) -> dict[str, Any]:
    """Stream tokens, and measure time and memory at each power of ten.

    Bursts alternate with those of a stream at position 3,000, so that a busy machine slows both.
    """
    tokens = sample_tokens(model.vocab_size)
    engine, state, young = model.engine, model.engine.zero_state(), model.engine.zero_state()
    ids = list(tokens.reshape(-1, 1))
    engine.prefill(tokens[None, :3000], young, last=True)
    rows, position, start = [], 0, time.perf_counter()
    marks = [mark for mark in MARKS if mark < count] + [count]
    for mark in marks:
        while position < mark:
            engine.step(ids[position % len(ids)], state)
            position += 1
        times = least_times(
            {"old": _steps(engine.step, ids, state), "young": _steps(engine.step, ids, young)}, 40
        )
        rows.append(
            {
                "position": mark,
                "us": times["old"],
                "young_us": times["young"],
                "resident_mb": resident_mb(),
            }
        )
    values = state.read()
    finite = all(np.isfinite(value).all() for value in values.values())
    return {"rows": rows, "finite": finite, "seconds": time.perf_counter() - start}


def _steps(step: Callable[..., Any], ids: list[Any], state: Any) -> Burst:
    def burst() -> int:
        for token in ids[:STEPS]:
            step(token, state)
        return STEPS

    return burst


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
        print(f"A batch of {ROWS}, {name}: {value:.2f} times the tokens per second of one stream.")
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
    print(f"{figures['seconds']:.0f} s; the state is finite: {figures['finite']}")


if __name__ == "__main__":
    main()

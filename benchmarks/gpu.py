"""A decode step on a GPU: every engine and PyTorch in one run, beside their lower bounds.

    python benchmarks/gpu.py models/shakespeare-nano models/checkpoints/shakespeare-nano --json F

Each row is a complete step: tokens to the device, logits back. Engines take turns, so that a
changing clock rate affects all of them. Two lower bounds are measured too: the launch of a captured
graph of one kernel, which limits small batches, and the transfer of a step's bytes at the measured
bandwidth, which limits large ones.

Engines that cannot run are listed with the reason. ``--device cpu`` tries the script without a GPU;
its figures say nothing about one.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lib.gpu_limits import measure_limits
from lib.results import write_results
from rillet.runtime import Bundle, RilletError
from rillet.runtime.engines.base import Engine
from rillet.runtime.engines.cuda.driver import driver_obstacle, find_gpu
from rillet.runtime.engines.ort.device_engine import OnnxDeviceEngine
from rillet.runtime.engines.ort.host_engine import OnnxEngine
from rillet.runtime.engines.tensorrt.api import LIBRARIES, find_tensorrt
from rillet.runtime.engines.tensorrt.build import BuildOptions, build_engine
from rillet.runtime.engines.tensorrt.engine import TensorrtEngine
from rillet.train import DualCNN, load_checkpoint

Step = Callable[[], object]
"""Takes one step of a batch, and waits for its logits in host memory."""

Maker = Callable[[int], Step]
"""Makes the step of a batch, from its size."""

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--batch", default="1,8,64,512", help="comma-separated batch sizes")
    parser.add_argument("--steps", type=int, default=300, help="steps per burst")
    parser.add_argument("--bursts", type=int, default=5, help="bursts of each engine")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and (obstacle := driver_obstacle()) is not None:
        parser.exit(1, f"{obstacle}; these figures need an NVIDIA GPU\n")
    batches = [int(size) for size in arguments.batch.split(",")]
    model = load_checkpoint(arguments.checkpoint).model.eval()
    with tempfile.TemporaryDirectory() as folder:  # keeps built engines away from the bundle
        copy = Path(folder) / arguments.bundle.name
        shutil.copytree(arguments.bundle, copy)
        bundle = Bundle.open(copy)
        figures = measure(
            bundle,
            model,
            arguments.device,
            batches,
            arguments.steps,
            arguments.bursts,
            lambda part: write_results(arguments.json, part),
        )
    show(figures)


def measure(
    bundle: Bundle,
    model: DualCNN,
    device: str,
    batches: list[int],
    steps: int,
    bursts: int,
    save: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """Time every engine at every batch size, and save what is known after each size."""
    makers = _makers(bundle, model, device, tuple(batches))
    limits = measure_limits(bundle, device, batches)
    figures: dict[str, Any] = {
        "bundle": bundle.path.name,
        "device": _describe_device(device),
        "rows": [],
        "limits": limits,
        "ratios": {},
    }
    rows: list[Row] = figures["rows"]
    for batch in batches:
        ready: dict[str, Step] = {}
        for name, make in makers.items():
            try:
                step = make(batch)
                for _ in range(20):
                    step()
                ready[name] = step
            except Exception as error:  # an engine that cannot run must not stop the others
                reason = str(error) if isinstance(error, RilletError) else repr(error)
                rows.append({"engine": name, "batch": batch, "reason": reason})
        seconds: dict[str, list[float]] = {name: [] for name in ready}
        for _ in range(bursts):
            for name, step in ready.items():
                seconds[name] += _burst(step, steps)
        for name, times in seconds.items():
            p50, p99 = (float(np.percentile(times, rank)) for rank in (50, 99))
            rows.append(
                {
                    "engine": name,
                    "batch": batch,
                    "p50_us": p50 * 1e6,
                    "p99_us": p99 * 1e6,
                    "tokens_per_s": batch / p50,
                }
            )
        figures["ratios"] = _ratios(rows, limits["memory_us"])
        save(figures)
    return figures


def _makers(
    bundle: Bundle, model: DualCNN, device: str, batches: tuple[int, ...]
) -> dict[str, Maker]:
    """The makers of each engine's step; an engine is opened once, at its first use."""
    if device == "cpu":
        return {
            "host engine": _engine(bundle, lambda: OnnxEngine(bundle)),
            "device engine": _engine(bundle, lambda: OnnxDeviceEngine(bundle, "cpu")),
            "PyTorch eager": lambda batch: _eager(model, device, batch),
        }
    makers: dict[str, Maker] = {
        "CUDA provider": _engine(bundle, lambda: OnnxDeviceEngine(bundle, "cuda", graphs=False)),
        "CUDA provider, graphs": _engine(
            bundle, lambda: OnnxDeviceEngine(bundle, "cuda", graphs=True)
        ),
    }
    for library in LIBRARIES:
        makers[f"{library}, graphs"] = _engine(bundle, partial(_native, bundle, library, batches))
    makers["PyTorch eager"] = lambda batch: _eager(model, device, batch)
    makers["PyTorch compiled, graphs"] = lambda batch: _compiled(model, batch)
    return makers


def _native(bundle: Bundle, library: str, batches: tuple[int, ...]) -> TensorrtEngine:
    api = find_tensorrt(library)
    build_engine(bundle, "decode", api, BuildOptions(tuple(sorted(batches))))
    return TensorrtEngine(bundle, library)


def _engine(bundle: Bundle, open_engine: Callable[[], Engine]) -> Maker:
    opened: list[Engine] = []

    def make(batch: int) -> Step:
        if not opened:
            opened.append(open_engine())
        engine = opened[0]
        state = engine.zero_state(batch)
        tokens = np.arange(batch, dtype=np.int64) % bundle.vocab_size
        return lambda: engine.step(tokens, state)

    return make


def _eager(model: DualCNN, device: str, batch: int) -> Step:
    model.to(device)
    state = model.zero_state(batch)
    tokens = torch.arange(batch)[:, None] % model.config.vocab_size

    def step() -> object:
        nonlocal state
        with torch.inference_mode():
            logits, state = model(tokens.to(device), state)
            return logits.cpu()

    return step


def _compiled(model: DualCNN, batch: int) -> Step:
    """A compiled and captured step that updates its state in place: the fastest PyTorch."""
    model.to("cuda")
    state = model.zero_state(batch)
    host = (torch.arange(batch)[:, None] % model.config.vocab_size).pin_memory()
    tokens = host.to("cuda")
    compiled = torch.compile(model, dynamic=False)

    def advance() -> torch.Tensor:
        logits: torch.Tensor
        logits, after = compiled(tokens, state)
        for name, value in after.items():
            state[name].copy_(value)
        return logits

    with torch.inference_mode():
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                advance()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            logits = advance()

    def step() -> torch.Tensor:
        tokens.copy_(host, non_blocking=True)
        graph.replay()
        return logits.cpu()

    return step


def _burst(step: Step, steps: int) -> list[float]:
    """Seconds of each step."""
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return times


def _ratios(rows: list[Row], memory: dict[int, float]) -> dict[str, float]:
    """The speed-up over PyTorch eager, and the multiple of the memory bound, of each row."""
    times = {(row["engine"], row["batch"]): row["p50_us"] for row in rows if "p50_us" in row}
    ratios = {}
    for (name, batch), p50 in times.items():
        eager = times.get(("PyTorch eager", batch))
        if eager is not None and not name.startswith("PyTorch"):
            ratios[f"PyTorch eager / {name}, batch {batch}"] = eager / p50
        ratios[f"{name} / memory limit, batch {batch}"] = p50 / memory[batch]
    return ratios


def _describe_device(device: str) -> str:
    if device == "cpu":
        return "cpu"
    gpu = find_gpu()
    return f"{gpu.name}, compute capability {gpu.capability}, driver for CUDA {gpu.driver}"


def show(figures: dict[str, Any]) -> None:
    bounds = figures["limits"]
    print(f"{figures['bundle']} on {figures['device']}\n")
    print("| engine | batch | tokens/s | p50, us | p99, us | times the memory limit |")
    print("| --- | --- | --- | --- | --- | --- |")
    for row in figures["rows"]:
        if "reason" not in row:
            bound = row["p50_us"] / bounds["memory_us"][row["batch"]]
            print(
                f"| {row['engine']} | {row['batch']} | {row['tokens_per_s']:,.0f} | "
                f"{row['p50_us']:.1f} | {row['p99_us']:.1f} | {bound:.1f} |"
            )
    memory = ", ".join(f"{batch}: {us:.2f}" for batch, us in bounds["memory_us"].items())
    print(f"\nbandwidth {bounds['bandwidth_gb_per_s']:.0f} GB/s; memory limit, us: {memory}")
    if bounds["launch_us"] is not None:
        print(f"launch of a graph of one kernel, and wait for it: {bounds['launch_us']:.1f} us")
    for name, ratio in figures["ratios"].items():
        if name.startswith("PyTorch eager /"):
            print(f"{name}: {ratio:.2f}")
    for row in figures["rows"]:
        if "reason" in row:
            print(f"{row['engine']}, batch {row['batch']}: not measured: {row['reason']}")


if __name__ == "__main__":
    main()

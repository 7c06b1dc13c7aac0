"""Steps of the converged baselines on ONNX Runtime, alone and with our memory, beside ours.

    python benchmarks/converged_steps.py --beside CHECKPOINT [--models gru,lstm,mingru,transformer]
        [--bundles FOLDER...] [--bursts 30] [--json FILE]

The baselines have the shapes that ``converged.py`` gives them beside the checkpoint, and random
weights: the time does not depend on them. Each graph is checked against PyTorch. All run on one
thread and take turns in short bursts, ours among them, and each figure is the fastest burst in CPU
time of the thread: compare ratios. Bytes are those of the step's graph and of one stream's state.

``--bundles`` adds bundles of ours, such as one in int8. The native engine reads nothing but bundles
of ours: its median step and the size of the whole bundle are noted beside them.
"""

from __future__ import annotations

import argparse
import gc
from pathlib import Path
from typing import Any

import onnx
import torch

from lib.baseline_steps import baseline_step
from lib.bursts import least_times
from lib.full_training import BUILD
from lib.memory_on_top import (
    FrozenBaseline,
    FrozenDualCNN,
    MemoryOnTop,
    memory_config,
    memory_state,
)
from lib.results import write_results
from lib.samples import sample_tokens
from lib.stepping import Steps
from lib.torch_check import Forward, check_against_torch
from rillet.export.graphs.build import decode_graph
from rillet.runtime.bench import measure_bundle
from rillet.runtime.bundle import Bundle
from rillet.train import DualCNN, load_checkpoint
from rillet.train.model.context_memory import ContextMemory

STEPS, FILLED = 64, 2048
"""Tokens per burst, and tokens read before the first one."""

Row = dict[str, Any]


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--beside", type=Path, required=True, metavar="CHECKPOINT")
    parser.add_argument("--models", default=",".join(BUILD))
    parser.add_argument("--bundles", type=Path, nargs="*", default=[])
    parser.add_argument("--bursts", type=int, default=30)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = load_checkpoint(arguments.beside).model
    bursts = own_steps(model)
    for path in arguments.bundles:
        bundle = Bundle.open(path)
        if not bundle.manifest.get("quantization"):
            continue  # the same graph as the checkpoint's
        bursts[path.name] = filled(onnx.load(bundle.graph("decode")), bundle.vocab_size)
    for name in arguments.models.split(","):
        bursts |= baseline_steps(name, model)
    # Keep the garbage collector from scanning what PyTorch and onnx loaded during a burst.
    gc.collect()
    gc.freeze()
    times = least_times({name: steps for name, (steps, _) in bursts.items()}, arguments.bursts)
    rows = {
        name: {
            "us": times[name],
            "ratio": times[name] / times["ours"],
            "bytes": size,
            "state_bytes": steps.state_bytes,
        }
        for name, (steps, size) in bursts.items()
    }
    for name, row in rows.items():
        print(
            f"{name}: {row['us']:.1f} µs ({row['ratio']:.2f}), {row['bytes']:,} bytes, "
            f"state {row['state_bytes']:,} bytes",
            flush=True,
        )
    native = {path.name: native_figures(path) for path in arguments.bundles}
    figures = {"beside": arguments.beside.name, "bursts": arguments.bursts, "rows": rows}
    write_results(arguments.json, {**figures, "native": native})


Sized = tuple[Steps, int]
"""A burst, and the bytes of its graph."""


def own_steps(model: DualCNN) -> dict[str, Sized]:
    """Our step in fp32, with its memory and without."""
    alone = FrozenDualCNN(model).module
    assert isinstance(alone, DualCNN)
    vocabulary = model.config.vocab_size
    return {
        "ours": filled(decode_graph(model), vocabulary),
        "ours, no memory": filled(decode_graph(alone), vocabulary),
    }


def baseline_steps(name: str, like: DualCNN) -> dict[str, Sized]:
    """A baseline's step alone and with a memory like a model's, each checked against PyTorch."""
    config, found = like.config, {}
    torch.manual_seed(0)
    model = BUILD[name](like.parameter_count(), config.vocab_size, 0.0).eval()
    network = FrozenBaseline(model)
    own = memory_config(config, network.width)
    memory = ContextMemory(own).eval()
    top = MemoryOnTop(network, memory, own)
    tokens = sample_tokens(config.vocab_size)

    def with_memory(token: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        mixed, _, state = top.read(token, state)
        return mixed, state

    graphs: dict[str, tuple[onnx.ModelProto, Forward]] = {
        name: (baseline_step(model), model),
        f"{name}, memory": (baseline_step(model, memory, memory_state(own, 3)), with_memory),
    }
    for title, (graph, forward) in graphs.items():
        check_against_torch(title, Steps(graph, tokens[:STEPS]), forward, tokens)
        found[title] = filled(graph, config.vocab_size)
    return found


def filled(graph: onnx.ModelProto, vocabulary: int) -> Sized:
    """A burst over a full window and a memory that has read."""
    tokens = sample_tokens(vocabulary)
    steps = Steps(graph, tokens[:STEPS])
    steps.run_all(tokens[:FILLED])
    return steps, len(graph.SerializeToString())


def native_figures(bundle: Path) -> Row:
    """A bundle on the native engine: its median step, its state, and its files."""
    speed = measure_bundle(bundle, "native")
    return {
        "us": speed["p50_us"],
        "state_bytes": round(speed["state_kb"] * 1e3),
        "bundle_bytes": sum(file.stat().st_size for file in bundle.iterdir()),
        "precision": speed["precision"],
    }


if __name__ == "__main__":
    main()

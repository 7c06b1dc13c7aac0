"""What a step costs: time per token of the runtime, by memory capacity, beside PyTorch.

    python benchmarks/decode.py [--json FILE] [--bursts N]

Models of the default preset with fresh weights: the time of a step does not depend on
them. The variants take turns in short bursts, so that a busy machine slows all alike;
the least time of each is the figure, and the ratios are what to quote.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import machine
import numpy as np
import torch

from rillet.export.bundle_writer import write_bundle
from rillet.runtime import Bundle
from rillet.runtime.onnx_engine import OnnxEngine
from rillet.train import Checkpoint, DualCNN, DualCNNConfig, builtin_corpus, make_tokenizer

CAPACITIES = (0, 256, 1024, 4096)
STEPS = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--bursts", type=int, default=30)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    text = builtin_corpus()[:200_000]
    tokenizer = make_tokenizer(text)
    tokens = np.asarray(tokenizer.encode(text[:STEPS]), np.int64)
    bursts: dict[str, Callable[[], int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for capacity in CAPACITIES:
            config = DualCNNConfig(memory=capacity, vocab_size=tokenizer.vocab_size)
            model = DualCNN(config).fit(torch.tensor(tokenizer.encode(text))).eval()
            path = Path(folder) / str(capacity)
            write_bundle(Checkpoint(model, tokenizer, {}), path, steps=300)
            engine = OnnxEngine(Bundle.open(path), "cpu")
            bursts[f"step, memory {capacity:,}"] = _step_burst(engine, tokens)
            if capacity == 1024:
                bursts["prefill of 256, memory 1,024"] = _prefill_burst(engine, tokens[:256])
                bursts["PyTorch step, memory 1,024"] = _torch_burst(model, tokens[:20])
        best = dict.fromkeys(bursts, float("inf"))
        for _ in range(arguments.bursts):
            for name, burst in bursts.items():
                start = time.perf_counter()
                count = burst()
                best[name] = min(best[name], (time.perf_counter() - start) / count * 1e6)
    base = best["step, memory 0"]
    print(f"{'':32} {'µs a token':>10} {'ratio':>7}")
    for name, value in best.items():
        print(f"{name:32} {value:10.1f} {value / base:7.2f}")
    machine.write(arguments.json, best)


def _step_burst(engine: OnnxEngine, tokens: np.ndarray) -> Callable[[], int]:
    state = engine.zero_state()

    def burst() -> int:
        for token in tokens:
            engine.step(token, state).argmax()
        return len(tokens)

    return burst


def _prefill_burst(engine: OnnxEngine, tokens: np.ndarray) -> Callable[[], int]:
    state = engine.zero_state()

    def burst() -> int:
        engine.prefill(tokens[None], state)
        return len(tokens)

    return burst


def _torch_burst(model: DualCNN, tokens: np.ndarray) -> Callable[[], int]:
    inputs = torch.from_numpy(tokens)

    def burst() -> int:
        state = model.zero_state()
        with torch.no_grad():
            for token in inputs:
                _, state = model(token.view(1, 1), state)
        return len(tokens)

    return burst


if __name__ == "__main__":
    main()

"""The differences between engines, and between chunkings, over a long text.

    python benchmarks/parity.py RUN BUNDLE TEXT [--tokens N] [--json FILE]

Compares PyTorch with each graph on TEXT as one stream, and then each engine with itself on the
first 3,000 tokens: at once, in chunks of random length, and step by step.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from lib.arrays import Array, TokenArray
from lib.results import write_results
from rillet.export.parity.graph_parity import compare_graph
from rillet.export.parity.report import TOLERANCE, ParityReport
from rillet.runtime import Bundle
from rillet.runtime.engines.ort.host_engine import OnnxEngine
from rillet.train import DualCNN, load_checkpoint

CUT = 3_000
"""Tokens that are read in several chunkings."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--tokens", type=int, default=100_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    checkpoint = load_checkpoint(arguments.run)
    engine = OnnxEngine(Bundle.open(arguments.bundle), "cpu")
    tokens = checkpoint.tokenizer.encode(arguments.text.read_text(encoding="utf-8"))
    stream = np.asarray([tokens[-arguments.tokens :]], np.int64)
    rows = [
        compare_graph(checkpoint.model, engine, graph, stream, "the text", TOLERANCE["fp32"])
        for graph in ("decode", "prefill")
    ]
    print(ParityReport(tuple(rows)).table())
    cuts = {
        "PyTorch": _chunking_differences(
            lambda chunks: _torch_logits(checkpoint.model, stream, chunks)
        ),
        "ONNX Runtime": _chunking_differences(
            lambda chunks: _engine_logits(engine, stream, chunks)
        ),
    }
    for name, (chunked, stepped) in cuts.items():
        print(f"{name}: {CUT:,} tokens at once, in chunks {chunked:.1e}, in steps {stepped:.1e}")
    write_results(arguments.json, {"parity": [row.to_dict() for row in rows], "cuts": cuts})


def _chunking_differences(logits: Callable[[list[int]], Array]) -> tuple[float, float]:
    """The largest differences of a logit from one chunk: in random chunks, and in steps."""
    whole = logits([CUT])

    def difference(lengths: list[int]) -> float:
        return float(np.abs(logits(lengths) - whole).max())

    random = np.random.default_rng(0)
    ends = np.sort(random.choice(np.arange(1, CUT), 30, replace=False))
    lengths = np.diff([0, *ends, CUT]).tolist()
    return difference(lengths), difference([1] * CUT)


def _torch_logits(model: DualCNN, stream: TokenArray, chunks: list[int]) -> Array:
    state, parts = model.zero_state(), []
    with torch.no_grad():
        for chunk in torch.from_numpy(stream[:, : sum(chunks)]).split(chunks, dim=1):
            logits, state = model(chunk, state)
            parts.append(logits.numpy())
    return np.concatenate(parts, axis=1)


def _engine_logits(engine: OnnxEngine, stream: TokenArray, chunks: list[int]) -> Array:
    state, parts, start = engine.zero_state(), [], 0
    for length in chunks:
        chunk = stream[:, start : start + length]
        if length == 1:
            parts.append(engine.step(chunk[:, 0], state).copy()[:, None])
        else:
            parts.append(engine.prefill(chunk, state))
        start += length
    return np.concatenate(parts, axis=1)


if __name__ == "__main__":
    main()

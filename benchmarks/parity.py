"""How far engines and chunkings differ over a long text.

    python benchmarks/parity.py RUN BUNDLE TEXT [--tokens N] [--json FILE]

PyTorch against each graph on TEXT, as one stream; then each engine against itself: the
text's first 3,000 tokens at once, in chunks of random length, and step by step.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import machine
from rillet.export.parity.graph_parity import compare_graph
from rillet.export.parity.report import TOLERANCE, ParityReport
from rillet.runtime import Bundle
from rillet.runtime.engines.ort.host_engine import OnnxEngine
from rillet.train import DualCNN, load_checkpoint

CUT = 3_000


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
        "PyTorch": _cuts(lambda chunks: _torch_logits(checkpoint.model, stream, chunks)),
        "ONNX Runtime": _cuts(lambda chunks: _engine_logits(engine, stream, chunks)),
    }
    for name, (chunked, stepped) in cuts.items():
        print(f"{name}: {CUT:,} tokens at once, in chunks {chunked:.1e}, in steps {stepped:.1e}")
    machine.write(arguments.json, {"parity": [row.to_dict() for row in rows], "cuts": cuts})


def _cuts(logits: Callable[[list[int]], np.ndarray]) -> tuple[float, float]:
    """Largest difference of a logit between one chunk and many, and one and single steps."""
    whole = logits([CUT])
    random = np.random.default_rng(0)
    ends = np.sort(random.choice(np.arange(1, CUT), 30, replace=False))
    lengths = np.diff([0, *ends, CUT]).tolist()
    return tuple(float(np.abs(logits(cut) - whole).max()) for cut in (lengths, [1] * CUT))


def _torch_logits(model: DualCNN, stream: np.ndarray, chunks: list[int]) -> np.ndarray:
    state, parts = model.zero_state(), []
    with torch.no_grad():
        for chunk in torch.from_numpy(stream[:, : sum(chunks)]).split(chunks, dim=1):
            logits, state = model(chunk, state)
            parts.append(logits.numpy())
    return np.concatenate(parts, axis=1)


def _engine_logits(engine: OnnxEngine, stream: np.ndarray, chunks: list[int]) -> np.ndarray:
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

"""Time per token against the position in the stream: our model, a GRU, and a transformer.

    python benchmarks/positions.py [--positions 64,256,1024,4096,16384,65536] [--bursts 30]
                                   [--json FILE]

``nano`` as shipped and a GRU really read up to each position; a transformer attends to a full cache
of as many tokens. At each position all of them take turns in short bursts on one thread, and each
figure is the fastest burst in CPU time of the thread. The baselines have random weights, since the
time does not depend on them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import onnx
import torch

from lib.arrays import TokenArray
from lib.baselines import matched_gru
from lib.bursts import least_times
from lib.kv_transformer import NANOGPT, make_weights, steps_with_full_cache
from lib.nano import MODELS, matched_transformer, nano_size
from lib.plain_export import export_recurrent
from lib.results import write_results
from lib.samples import sample_tokens
from lib.stepping import Steps
from rillet.runtime.bundle import Bundle

STEPS = 64
"""Tokens per burst."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--positions", default="64,256,1024,4096,16384,65536")
    parser.add_argument("--bursts", type=int, default=30)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    size, vocab = nano_size()
    tokens = sample_tokens(vocab)
    graph = onnx.load(Bundle.open(MODELS / "shakespeare-nano").graph("decode"))
    gru = export_recurrent(matched_gru(size, vocab).eval())
    streams = {"nano": Steps(graph, tokens[:STEPS]), "gru": Steps(gru, tokens[:STEPS])}
    shapes = {"gpt": matched_transformer(), "nanogpt": NANOGPT}
    read = 0
    rows: list[dict[str, Any]] = []
    for position in map(int, arguments.positions.split(",")):
        for stream in streams.values():
            advance(stream, tokens, position - read)
        caches = {
            name: steps_with_full_cache(position, make_weights(shape), tokens, shape)
            for name, shape in shapes.items()
        }
        steps = {**streams, **caches}
        # Beyond this a transformer's step is slow, and its cache larger than the processor's.
        bursts = arguments.bursts if position < 10_000 else 5
        times = least_times(steps, bursts)
        read = position + 2 * STEPS * bursts
        rows.append(
            {
                "position": position,
                "us": times,
                "state_bytes": {name: step.state_bytes for name, step in steps.items()},
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    write_results(arguments.json, rows)


def advance(stream: Steps, tokens: TokenArray, count: int) -> None:
    """Read a number of tokens from the start of a text, which repeats."""
    for index in range(max(0, count)):
        stream.read(tokens[index % len(tokens)])


if __name__ == "__main__":
    main()

"""Time per token against the position in the stream: ours, a GRU, and a transformer's cache.

    python benchmarks/positions.py [--positions 64,256,1024,4096,16384,65536] [--bursts 30]
                                   [--json FILE]

``nano`` as shipped and a GRU really read so many tokens; a transformer has a full cache of as
many, which attends to all of them. At each position all take turns in short bursts on one thread,
and the least of each, in the thread's own time, is the figure. Weights of the baselines are
random: the time does not depend on them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

import kv_transformer
import machine
from baselines import matched_gru
from costs import MODELS, STEPS, matched_shape, nano_size, state_bytes
from decode import transformer
from graphs import some_tokens
from plain_export import export_recurrent
from rillet.runtime.bundle import Bundle
from stepping import Steps, least_times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--positions", default="64,256,1024,4096,16384,65536")
    parser.add_argument("--bursts", type=int, default=30)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    size, vocab = nano_size()
    tokens = some_tokens(vocab)
    graph = onnx.load(Bundle.open(MODELS / "shakespeare-nano").graph("decode"))
    gru = export_recurrent(matched_gru(size, vocab).eval())
    streams = {"nano": Steps(graph, tokens[:STEPS]), "gru": Steps(gru, tokens[:STEPS])}
    shapes = {"gpt": matched_shape(), "nanogpt": kv_transformer.NANOGPT}
    read = dict.fromkeys(streams, 0)
    rows: list[dict[str, Any]] = []
    for position in map(int, arguments.positions.split(",")):
        for name, stream in streams.items():
            advance(stream, tokens, position - read[name])
        caches = {
            name: transformer(position, kv_transformer.make_weights(shape), tokens, shape)
            for name, shape in shapes.items()
        }
        steps = {**streams, **caches}
        # Steps of a transformer take long there, and its cache outgrows the processor's.
        bursts = arguments.bursts if position < 10_000 else 5
        times = least_times({**steps}, bursts)
        read = dict.fromkeys(streams, position + 2 * STEPS * bursts)
        rows.append(
            {
                "position": position,
                "us": times,
                "state_bytes": {name: state_bytes(step) for name, step in steps.items()},
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    machine.write(arguments.json, rows)


def advance(stream: Steps, tokens: np.ndarray, count: int) -> None:
    """Read so many tokens, from the beginning of a text again and again."""
    for place in range(max(0, count)):
        stream.read(tokens[place % len(tokens)])


if __name__ == "__main__":
    main()

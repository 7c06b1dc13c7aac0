"""The native engine beside ONNX Runtime: a step, a prefill, a batch and text, in one run.

    python benchmarks/native.py CHECKPOINT_OR_BUNDLE... [--bursts 60] [--json FILE]

One thread; all contenders take turns in short bursts, and each figure is the fastest burst in CPU
time of the thread. The memory is full, and steps include the greedy choice. Text is sampled,
decoded and taken piece by piece from ``session.stream``; compare it with calls in bursts as long,
which meet as many other programs. Compare ratios.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from safetensors.numpy import load_file

from lib.arrays import TokenArray
from lib.baselines import matched_gru
from lib.bursts import Burst, engine_burst, least_times
from lib.machine_limits import read_rate
from lib.plain_export import export_recurrent
from lib.results import write_results
from lib.samples import sample_tokens
from lib.stepping import Steps
from rillet.export import ExportOptions, quantize
from rillet.export.bundle.writer import write_bundle
from rillet.runtime import Bundle, Model
from rillet.runtime.bundle import WEIGHTS_FILE
from rillet.runtime.engines.base import Engine
from rillet.runtime.engines.native.engine import NativeEngine
from rillet.runtime.engines.native.library import block
from rillet.runtime.engines.ort.host_engine import OnnxEngine
from rillet.runtime.state_table import is_shared
from rillet.train import load_checkpoint

STEPS, CHUNK, ROWS, BEFORE, WRITTEN = 64, 256, 64, 2_000, 512
"""Tokens of a burst of steps, of a prefill; rows of a batch; tokens read before; of a text."""

TEMPERATURE = 0.8
"""Of the text."""

UNIT = "ONNX Runtime: decode.onnx"
"""What ratios are relative to."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--bursts", type=int, default=60)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    figures = {}
    for path in arguments.models:
        figures[path.name] = measure(path, arguments.bursts)
        show(path.name, figures[path.name])
    write_results(arguments.json, {"microseconds": figures})


def measure(path: Path, bursts: int) -> dict[str, float]:
    """Microseconds a token of each contender."""
    if (path / "bundle.json").exists():
        return measure_bundle(Bundle.open(path), bursts)
    with tempfile.TemporaryDirectory() as folder:
        options = ExportOptions(parity_steps=300, generate=False)
        write_bundle(load_checkpoint(path), Path(folder) / "bundle", options=options)
        return measure_bundle(Bundle.open(Path(folder) / "bundle"), bursts)


def measure_bundle(bundle: Bundle, bursts: int) -> dict[str, float]:
    """Microseconds a token of each contender, on a bundle."""
    tokens = np.resize(sample_tokens(bundle.vocab_size), BEFORE + CHUNK)
    with tempfile.TemporaryDirectory() as folder:
        lowered = quantize(bundle, Path(folder) / "int8", "int8", tokens=300, max_loss_rise=1)
        times = least_times(contenders(bundle, lowered, tokens), bursts)
        limits = {"limit: reading": read_time(bundle), "limit: reading, int8": read_time(lowered)}
        return times | limits


def read_time(bundle: Bundle) -> float:
    """Microseconds that it takes to read what a step reads: the weights of products, and windows.

    A step reads one row of the tables of the embedding, and one slot of each of the memory.
    """
    weights = load_file(bundle.checked_file(WEIGHTS_FILE))
    read = sum(
        tensor.nbytes
        for name, tensor in weights.items()
        if not name.startswith(("embedder.", "memory."))
    )
    windows = [row.zeros(1) for row in bundle.state if not is_shared(row)]
    size = read + sum(window.nbytes for window in windows)
    return size / read_rate(size) * 1e6


def contenders(bundle: Bundle, lowered: Bundle, tokens: TokenArray) -> dict[str, Burst]:
    """All bursts, each on streams that have read the text."""
    start, rest = tokens[:BEFORE], tokens[BEFORE:]
    decode, prefill = (onnx.load(bundle.graph(name)) for name in ("decode", "prefill"))
    native, host, int8 = NativeEngine(bundle), OnnxEngine(bundle), NativeEngine(lowered)
    fewer = onnx.load(lowered.graph("decode"))
    return {
        UNIT: warmed(Steps(decode, rest[:STEPS]), start),
        "ONNX Runtime: GRU of equal size": Steps(equal_gru(bundle), rest[:STEPS]),
        "ONNX Runtime: decode.onnx, int8": warmed(Steps(fewer, rest[:STEPS]), start),
        "ONNX Runtime: prefill.onnx": Steps(prefill, rest, CHUNK),
        "ONNX Runtime: batch of 64": batch(host, rest),
        "native: one call a token": Calls(native, start, rest[:STEPS], 1),
        "native: Engine.step": engine_burst(native, start, rest[:STEPS]),
        "native: prefill": Calls(native, start, rest, CHUNK),
        "native: batch of 64": batch(native, rest),
        "ONNX Runtime: text": text(Model(bundle, host), start),
        "native: text": text(Model(bundle, native), start),
        "native: one call, as long": Calls(native, start, np.resize(rest, WRITTEN), 1),
        "native int8: one call a token": Calls(int8, start, rest[:STEPS], 1),
        "native int8: Engine.step": engine_burst(int8, start, rest[:STEPS]),
        "native int8: prefill": Calls(int8, start, rest, CHUNK),
        "native int8: batch of 64": batch(int8, rest),
    }


def equal_gru(bundle: Bundle) -> onnx.ModelProto:
    """The step of a GRU with as many parameters."""
    parameters = int(bundle.manifest["training"]["parameters"])
    return export_recurrent(matched_gru(parameters, bundle.vocab_size).eval())


def warmed(burst: Steps, tokens: TokenArray) -> Burst:
    """A burst whose stream has read a text."""
    for token in tokens:
        burst.read(token)
    return burst


class Calls:
    """A burst of calls of the library itself, ``rows`` tokens of one stream each.

    Args:
        engine: The engine.
        start: What the stream has read.
        tokens: The tokens of a burst.
        rows: Tokens a call.
    """

    def __init__(self, engine: NativeEngine, start: TokenArray, tokens: TokenArray, rows: int):
        self.state = engine.zero_state()
        engine.prefill(start[None], self.state, last=True)
        model = engine.model
        self.read, self.count = model.library.rillet_read, len(tokens)
        self.logits = np.zeros((rows, engine.vocab_size), np.float32)
        size = self.logits[0].nbytes
        arrays = (
            np.full(rows, self.state.address(0), np.uint64),
            tokens.astype(np.int32),
            np.ones(rows, np.float32),
            self.logits.ctypes.data + np.arange(rows, dtype=np.uint64) * np.uint64(size),
            block(model.scratch_size(rows)),
        )
        self.kept = arrays  # a call holds bare addresses
        states, ids, learn, outputs, scratch = (array.ctypes.data for array in arrays)
        self.calls = [
            (model.address, rows, states, ids + 4 * at, learn, outputs, scratch)
            for at in range(0, len(tokens), rows)
        ]

    def __call__(self) -> int:
        """Read the burst's tokens; returns their number."""
        for call in self.calls:
            self.read(*call)
            self.logits[-1].argmax()
        return self.count


def batch(engine: Engine, tokens: TokenArray) -> Burst:
    """Steps of a batch whose streams read different places of a text."""
    state = engine.zero_state(ROWS)
    columns = [np.roll(tokens, at)[:ROWS] for at in range(8)]

    def burst() -> int:
        for column in columns:
            engine.step(column, state)
        return ROWS * len(columns)

    return burst


def text(model: Model, tokens: TokenArray) -> Burst:
    """A text as users get it."""
    session = model.session()
    session.feed_tokens(tokens.tolist())
    seeds = itertools.count()

    def burst() -> int:
        for _ in session.stream(temperature=TEMPERATURE, seed=next(seeds), max_new_tokens=WRITTEN):
            pass
        return WRITTEN

    return burst


def show(name: str, figures: dict[str, Any]) -> None:
    """Print a model's figures."""
    print(f"\n{name}, microseconds a token")
    for contender, time in figures.items():
        print(f"{contender:32}{time:9.2f}{figures[UNIT] / time:8.1f} x")


if __name__ == "__main__":
    main()

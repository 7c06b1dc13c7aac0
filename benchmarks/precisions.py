"""What each precision costs and gains: file, held-out loss, and time of a step.

    python benchmarks/precisions.py BUNDLE CORPUS

BUNDLE is in fp32; of the corpus that it was trained on, the whole held-out part is read. The
steps of all precisions are timed in one run, in bursts that take turns; the least of each counts.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from rillet.export import quantize
from rillet.export.quantization.conversions import PRECISIONS
from rillet.runtime.bundle import Bundle
from rillet.runtime.engines.ort.host_engine import OnnxEngine

_BURSTS, _STEPS = 300, 20
"""Short bursts: on a shared machine the least of long ones is not free of others' work."""


def main(source: Path, corpus: Path) -> None:
    """Print the table."""
    print(f"{platform.machine()}, {os.cpu_count()} cores, onnxruntime {onnxruntime.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        made = {"fp32": Bundle.open(source)}
        wanted: list[tuple[str, str, dict[str, Any]]] = [
            (precision, method, {})
            for precision, entry in PRECISIONS.items()
            for method in entry.methods
        ]
        wanted.insert(1, ("fp16", "multiply", {"max_difference": 0.02}))
        for precision, method, options in wanted:
            name = " ".join([precision, method, *(f"within {v:g}" for v in options.values())])
            made[name] = quantize(
                source, Path(folder) / name, precision, method=method, text=corpus,
                max_loss_rise=1.0, tokens=None, **options,
            )  # fmt: skip
        times = _times(made)
        print("| | decode.onnx | prefill.onnx | held-out loss | rise | µs a step | of fp32's |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for name, bundle in made.items():
            found = (bundle if name != "fp32" else made["int8 static"]).manifest["quantization"]
            loss = found["loss_fp32" if name == "fp32" else "loss"]
            sizes = [bundle.graph(kind).stat().st_size / 1e3 for kind in ("decode", "prefill")]
            print(
                f"| {name} | {sizes[0]:.0f} kB | {sizes[1]:.0f} kB | {loss:.4f} | "
                f"{loss - found['loss_fp32']:+.4f} | {times[name]:.0f} | "
                f"{times[name] / times['fp32']:.2f} |"
            )


def _times(made: dict[str, Bundle]) -> dict[str, float]:
    engines = {name: OnnxEngine(bundle, "cpu", 1) for name, bundle in made.items()}
    states = {name: engine.zero_state() for name, engine in engines.items()}
    size = next(iter(made.values())).vocab_size
    tokens = np.random.default_rng(0).integers(0, size, (_STEPS, 1))
    least = dict.fromkeys(made, float("inf"))
    for _ in range(_BURSTS):
        for name, engine in engines.items():
            start = time.perf_counter()
            for token in tokens:
                engine.step(token, states[name])
            least[name] = min(least[name], time.perf_counter() - start)
    return {name: value / _STEPS * 1e6 for name, value in least.items()}


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

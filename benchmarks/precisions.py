"""The cost and gain of each precision: file size, held-out loss and time per step.

    python benchmarks/precisions.py BUNDLE CORPUS

BUNDLE is in fp32. The loss is measured on the whole held-out part of CORPUS, which the model was
trained on. Steps of all precisions are timed in one run, in bursts that take turns; the fastest
burst of each counts.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from lib.arrays import TokenArray
from lib.bursts import Burst, least_times
from rillet.export import quantize
from rillet.export.quantization.conversions import PRECISIONS
from rillet.runtime.bundle import Bundle
from rillet.runtime.engines.ort.host_engine import OnnxEngine

_BURSTS, _STEPS = 300, 20
"""Short bursts: on a shared machine, other programs interrupt every long one."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("corpus", type=Path)
    arguments = parser.parse_args()
    source, corpus = arguments.bundle, arguments.corpus
    print(f"{platform.machine()}, {os.cpu_count()} cores, onnxruntime {onnxruntime.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        bundles = {"fp32": Bundle.open(source)}
        variants: list[tuple[str, str, dict[str, Any]]] = [
            (precision, method, {})
            for precision, entry in PRECISIONS.items()
            for method in entry.methods
        ]
        variants.insert(1, ("fp16", "multiply", {"max_difference": 0.02}))
        for precision, method, options in variants:
            name = " ".join([precision, method, *(f"within {v:g}" for v in options.values())])
            bundles[name] = quantize(
                source,
                Path(folder) / name,
                precision,
                method=method,
                text=corpus,
                max_loss_rise=1.0,
                tokens=None,
                **options,
            )
        times = least_times(_bursts(bundles), _BURSTS)
        print("| | decode.onnx | prefill.onnx | held-out loss | rise | µs a step | of fp32's |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for name, bundle in bundles.items():
            measured = bundle if name != "fp32" else bundles["int8 static"]
            quantization = measured.manifest["quantization"]
            loss = quantization["loss_fp32" if name == "fp32" else "loss"]
            sizes = [bundle.graph(kind).stat().st_size / 1e3 for kind in ("decode", "prefill")]
            print(
                f"| {name} | {sizes[0]:.0f} kB | {sizes[1]:.0f} kB | {loss:.4f} | "
                f"{loss - quantization['loss_fp32']:+.4f} | {times[name]:.0f} | "
                f"{times[name] / times['fp32']:.2f} |"
            )


def _bursts(bundles: dict[str, Bundle]) -> dict[str, Burst]:
    size = next(iter(bundles.values())).vocab_size
    tokens = np.random.default_rng(0).integers(0, size, (_STEPS, 1))
    return {name: _burst(OnnxEngine(bundle, "cpu", 1), tokens) for name, bundle in bundles.items()}


def _burst(engine: OnnxEngine, tokens: TokenArray) -> Burst:
    state = engine.zero_state()

    def burst() -> int:
        for token in tokens:
            engine.step(token, state)
        return len(tokens)

    return burst


if __name__ == "__main__":
    main()

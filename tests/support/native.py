"""The native engine in tests: bundles of weights alone, and a skip where there is no library."""

from __future__ import annotations

from pathlib import Path

import pytest

from rillet.export.bundle.weights import weights_bytes
from rillet.export.graphs.metadata import state_table
from rillet.export.quantization.int8_weights import int8_weights
from rillet.runtime.bundle import WEIGHTS_FILE, Bundle
from rillet.runtime.engines.native.library import library_path
from rillet.runtime.files import sha256_bytes
from rillet.train import Checkpoint

__all__ = ["KERNELS", "needs_native", "weights_bundle"]

needs_native = pytest.mark.skipif(
    library_path() is None, reason="no C compiler built the native library"
)


KERNELS = ("plain", "sse4", "avx2", "avx512", "vnni", "dotprod")
"""Instruction sets that the library knows; a processor has some."""


def weights_bundle(checkpoint: Checkpoint, folder: Path, precision: str = "fp32") -> Bundle:
    """A bundle without graphs, which only the native engine can run; no graph is exported."""
    content, config = weights_bytes(checkpoint.model), checkpoint.model.config
    (folder / WEIGHTS_FILE).write_bytes(content)
    if precision == "int8":
        content = int8_weights(folder / WEIGHTS_FILE)
        (folder / WEIGHTS_FILE).write_bytes(content)
    files = {WEIGHTS_FILE: sha256_bytes(content), "tokenizer.json": ""}
    manifest = {
        "precision": precision,
        "model": config.to_dict(),
        "graphs": {},
        "files": files,
    }
    return Bundle(folder, manifest, state_table(config))

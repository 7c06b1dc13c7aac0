"""The native engine in tests: bundles of weights alone, and a skip where there is no library."""

from __future__ import annotations

from pathlib import Path

import pytest

from rillet.export.bundle.defaults import generation_config
from rillet.export.bundle.folder import write_manifest
from rillet.export.bundle.json_file import write_json
from rillet.export.bundle.start import write_start_state
from rillet.export.bundle.weights import weights_bytes
from rillet.export.graphs.metadata import state_table
from rillet.export.quantization.int8_weights import int8_weights
from rillet.runtime.bundle import WEIGHTS_FILE, Bundle
from rillet.runtime.engines.native.library import library_path
from rillet.runtime.files import sha256_bytes, sha256_file
from rillet.runtime.state_table import FORMAT, FORMAT_VERSION, state_table_json
from rillet.train import Checkpoint
from rillet.train.checkpoint import weights_sha256
from rillet.train.teach import teach

__all__ = ["KERNELS", "native_bundle", "needs_native", "weights_bundle"]

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


def native_bundle(checkpoint: Checkpoint, folder: Path, lesson: Path | None = None) -> Path:
    """A bundle whose graphs are empty files: exporting them takes a minute, and this engine reads
    none.

    Args:
        checkpoint: The model.
        folder: The folder to make.
        lesson: A text to teach its memory.
    """
    folder.mkdir()
    model, source = checkpoint.model, checkpoint.tokenizer.source.encode()
    (folder / "tokenizer.json").write_bytes(source)
    write_json(folder / "generation_config.json", generation_config(checkpoint.tokenizer))
    (folder / WEIGHTS_FILE).write_bytes(weights_bytes(model))
    files = ["tokenizer.json", "generation_config.json", WEIGHTS_FILE]
    if lesson is not None:
        files.append(write_start_state(folder, teach(checkpoint, (str(lesson),), folder)))
    graphs = {}
    for kind in ("decode", "prefill"):
        (folder / f"{kind}.onnx").write_bytes(b"")
        graphs[kind] = {"file": f"{kind}.onnx", "sha256": sha256_bytes(b"")}
    manifest = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "precision": "fp32",
        "model": model.config.to_dict(),
        "state": state_table_json(state_table(model.config)),
        "graphs": graphs,
        "files": {name: sha256_file(folder / name) for name in files},
        "weights_sha256": weights_sha256(model),
        "tokenizer_sha256": sha256_bytes(source),
    }
    write_manifest(folder, manifest)
    return folder

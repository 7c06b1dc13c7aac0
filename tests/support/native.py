"""The native engine in tests: bundles of weights alone, and a skip where there is no library."""

from __future__ import annotations

from pathlib import Path

import pytest

from rillet.export.bundle.weights import weights_bytes
from rillet.export.graphs.metadata import state_table
from rillet.runtime.bundle import WEIGHTS_FILE, Bundle
from rillet.runtime.engines.native.library import library_path
from rillet.runtime.files import sha256_bytes
from rillet.train import Checkpoint

__all__ = ["needs_native", "weights_bundle"]

needs_native = pytest.mark.skipif(
    library_path() is None, reason="no C compiler built the native library"
)


def weights_bundle(checkpoint: Checkpoint, folder: Path) -> Bundle:
    """A bundle without graphs, which only the native engine can run; no graph is exported."""
    content, config = weights_bytes(checkpoint.model), checkpoint.model.config
    (folder / WEIGHTS_FILE).write_bytes(content)
    files = {WEIGHTS_FILE: sha256_bytes(content), "tokenizer.json": ""}
    manifest = {
        "precision": "fp32",
        "model": config.to_dict(),
        "graphs": {},
        "files": files,
    }
    return Bundle(folder, manifest, state_table(config))

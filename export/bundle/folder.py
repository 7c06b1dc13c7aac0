"""The folder of a bundle: what it may replace, its JSON files and its model card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...runtime.bundle import BUNDLE_FILE, WEIGHTS_FILE, Bundle, checksum
from ...runtime.errors import UsageError
from ...runtime.files import write_atomic
from ...runtime.start_state import START_STATE_FILE
from ...runtime.text_sample import TEXT_SAMPLE_FILE
from ...runtime.tokenizer import Tokenizer
from .genai import GENAI_FILES
from .json_file import write_json
from .model_card import render_card
from .timing import measure_times

__all__ = ["CARD", "ONNXRUNTIME", "check_target", "write_card", "write_manifest"]

CARD = "README.md"
"""The model card: the only file without a hash, so that users may edit it."""

ONNXRUNTIME = "onnxruntime"
"""Marks a graph in the manifest that no other engine can run."""

_FILES = {
    BUNDLE_FILE,
    "decode.onnx",
    "prefill.onnx",
    "generate.onnx",
    "decode_static.onnx",
    WEIGHTS_FILE,
    "tokenizer.json",
    "generation_config.json",
    TEXT_SAMPLE_FILE,
    START_STATE_FILE,
    CARD,
    *GENAI_FILES,
}


def check_target(target: Path) -> None:
    """Check that a folder may be written: it is missing, empty or a bundle.

    Raises:
        UsageError: Something else would be overwritten.
    """
    if not target.exists() and not target.is_symlink():
        return
    if target.is_symlink() or not target.is_dir():
        raise UsageError(f"{target} is not a folder; choose another --out")
    names = {entry.name for entry in target.iterdir()}
    foreign = sorted(names - _FILES)
    if names and (BUNDLE_FILE not in names or foreign):
        what = f"contains other files ({', '.join(foreign[:3])})" if foreign else "is not a bundle"
        raise UsageError(f"{target} {what} and will not be replaced; choose another --out")


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Write ``bundle.json`` with its checksum."""
    write_json(folder / BUNDLE_FILE, {**manifest, "checksum": checksum(manifest)})


def write_card(folder: Path, name: str, manifest: dict[str, Any]) -> None:
    """Measure a finished bundle and write its model card.

    Args:
        folder: The bundle, complete except for the card.
        name: The bundle's final name.
        manifest: The content of ``bundle.json``.
    """
    sizes = {file.name: file.stat().st_size for file in folder.iterdir()}
    times = measure_times(Bundle.open(folder))
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    write_atomic(folder / CARD, render_card(name, manifest, sizes, times, tokenizer).encode())

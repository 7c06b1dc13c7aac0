"""Files that rillet itself wrote, which are no text to learn from."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from ...runtime.bundle import BUNDLE_FILE
from ...runtime.state_table import FORMAT

__all__ = ["BUNDLE_CARD", "RUN_FILES", "own_files"]

BUNDLE_CARD = "README.md"
"""A bundle's model card."""

RUN_FILES = (
    "checkpoint.safetensors",
    "training.safetensors",
    "log.csv",
    "summary.json",
    "summary.png",
    "tokens",
    "tensorboard",
)
"""Files and folders of a run; the first two show that a folder holds one."""


def own_files(folder: Path, names: Collection[str]) -> set[str]:
    """The files and folders in a folder that rillet wrote, by name.

    A bundle or a run may lie among a user's texts, so only its own files are named.

    Args:
        folder: Any folder.
        names: Names of its files.
    """
    own: set[str] = set()
    if BUNDLE_FILE in names and (manifest := _manifest(folder / BUNDLE_FILE)):
        listed = manifest.get("files")
        own |= {BUNDLE_FILE, BUNDLE_CARD, *(listed if isinstance(listed, dict) else ())}
    if any(name in names for name in RUN_FILES[:2]):
        own |= set(RUN_FILES)
    return own


def _manifest(path: Path) -> dict[str, object] | None:
    """The contents of a bundle's list of files; ``None`` if it is something else."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) and content.get("format") == FORMAT else None

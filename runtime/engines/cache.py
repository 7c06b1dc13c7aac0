"""Where engines that were built for this machine are kept."""

from __future__ import annotations

import os
from pathlib import Path

from ..bundle import Bundle, checksum
from ..errors import EngineError

__all__ = ["cache_folder", "engine_folders"]


def engine_folders(bundle: Bundle) -> list[Path]:
    """Where engines of a bundle may lie: beside it, and in the user's cache."""
    path = bundle.path.resolve()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    own = f"{path.name}-{checksum(bundle.manifest)[:16]}"
    return [
        path.with_name(path.name + ".engines"),
        Path(cache).expanduser() / "rillet" / "engines" / own,
    ]


def cache_folder(bundle: Bundle) -> Path:
    """Choose where to keep what is built from a bundle; the folder exists on return.

    It is beside the bundle, not inside: a bundle that is copied from another machine, or comes
    from a stranger, brings no engine with it. If that place is not writable, it is in the user's
    cache.

    Raises:
        EngineError: Neither place is writable.
    """
    failures = []
    for folder in engine_folders(bundle):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            failures.append(f"{folder}: {error.strerror or error}")
            continue
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
        failures.append(f"{folder}: not writable")
    raise EngineError(
        f"there is no folder to keep engines of {bundle.path} in ({'; '.join(failures)}); make one "
        "of them writable, or set XDG_CACHE_HOME"
    )

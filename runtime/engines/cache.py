"""Where engines that were built for this machine are kept."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from ..bundle import Bundle, checksum
from ..errors import EngineError

__all__ = ["cache_folder", "engine_files"]


def engine_files(bundle: Bundle, pattern: str) -> list[Path]:
    """The files of a bundle's engines whose names fit a pattern, folder by folder.

    A folder that cannot be read has none: a service has no home, or another user's.
    """
    files: list[Path] = []
    for folder in _folders(bundle):
        with suppress(OSError):
            files += sorted(folder.glob(pattern))
    return files


def _folders(bundle: Bundle) -> list[Path]:
    """Where engines of a bundle may lie: beside it, and in the user's cache."""
    path = bundle.path.resolve()
    folders = [path.with_name(path.name + ".engines")]
    with suppress(RuntimeError):  # this user has no home
        cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        own = f"{path.name}-{checksum(bundle.manifest)[:16]}"
        folders.append(cache / "rillet" / "engines" / own)
    return folders


def cache_folder(bundle: Bundle) -> Path:
    """Choose where to keep what is built from a bundle; the folder exists on return.

    It is beside the bundle, not inside: a bundle that is copied from another machine, or comes
    from a stranger, brings no engine with it. If that place is not writable, it is in the user's
    cache.

    Raises:
        EngineError: Neither place is writable.
    """
    failures = []
    for folder in _folders(bundle):
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

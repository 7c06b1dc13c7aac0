"""Texts that have a name: the one that ships with Python, and one to download."""

from __future__ import annotations

import http.client
import os
import urllib.request
from pathlib import Path
from typing import NamedTuple

from ...runtime.errors import CorpusError
from ...runtime.files import sha256_bytes, sha256_file, write_atomic

__all__ = ["BUILTIN", "TINYSHAKESPEARE", "Remote", "builtin_corpus", "cache_folder", "fetch"]

BUILTIN = "builtin:pydoc"
"""Name of the corpus that ships with Python."""


class Remote(NamedTuple):
    """A text to download once: its name, URL, size in bytes and SHA-256."""

    name: str
    url: str
    size: int
    sha256: str


TINYSHAKESPEARE = Remote(
    "tinyshakespeare",
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
    1_115_394,
    "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
)


def builtin_corpus() -> str:
    """Python's own reference documentation: English text that needs no download."""
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise CorpusError("this Python lacks pydoc_data; give a text with --corpus FILE") from error
    return "\n\n".join(topics[name] for name in sorted(topics))


def cache_folder() -> Path:
    """Folder of downloaded texts: ``RILLET_CACHE``, or ``rillet`` in the user's cache folder."""
    if own := os.environ.get("RILLET_CACHE"):
        return Path(own)
    variable = "LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME"
    return Path(os.environ.get(variable) or os.path.expanduser("~/.cache"), "rillet")


def fetch(remote: Remote, folder: Path | None = None) -> Path:
    """Path of a remote text in the cache; downloads it if it is missing or incomplete.

    Raises:
        CorpusError: The download failed, or its hash is wrong.
    """
    path = (folder or cache_folder()) / f"{remote.name}.txt"
    try:
        if path.is_file() and sha256_file(path) == remote.sha256:
            return path
        with urllib.request.urlopen(remote.url, timeout=30) as answer:  # noqa: S310 - our own URL
            data: bytes = answer.read(remote.size + 1)
        if sha256_bytes(data) != remote.sha256:
            raise CorpusError(
                f"{remote.url} sent {len(data):,} bytes with SHA-256 {sha256_bytes(data)} instead "
                f"of {remote.size:,} bytes with {remote.sha256}; give the file with --corpus FILE"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data)
    except (OSError, http.client.HTTPException) as error:
        raise CorpusError(
            f"{remote.name} cannot be downloaded from {remote.url} into {path.parent} ({error}); "
            "download it on another machine and give the file with --corpus FILE"
        ) from error
    return path

"""Streams as files in a folder, and as bytes."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path

from ..errors import StateError
from ..files import make_folder
from ..streams.session import Session
from .errors import RequestError
from .host import Host

__all__ = ["Stamp", "StreamFolder", "from_bytes", "is_id", "to_bytes"]

_ID = re.compile(r"[0-9a-f]{32}")

Stamp = tuple[int, int, int]
"""What changes when a file does."""


def is_id(name: str) -> bool:
    """Whether a stream can have this name: no other reaches the disk."""
    return _ID.fullmatch(name) is not None


class StreamFolder:
    """The files of all streams: ``MODEL/ID.state``.

    Args:
        root: The folder; what is missing of it is created.
        models: The names of the models.

    Raises:
        StorageError: It cannot be created.
    """

    def __init__(self, root: Path, models: Iterable[str]) -> None:
        self._root = root
        for model in models:
            make_folder(root / model)

    def names(self, host: Host) -> list[str]:
        """The streams of a model."""
        with os.scandir(self._root / host.name) as entries:
            names = [entry.name.removesuffix(".state") for entry in entries]
        return [name for name in names if is_id(name)]

    def stamp(self, host: Host, name: str) -> Stamp | None:
        """A stream's file as it is now; ``None`` if there is none."""
        try:
            status = self._path(host, name).stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino, status.st_size

    def save(self, host: Host, name: str, session: Session) -> None:
        """Write a stream to its file."""
        session.save(self._path(host, name))

    def read(self, host: Host, name: str) -> Session:
        """Read a stream from its file."""
        return host.model.restore(self._path(host, name))

    def delete(self, host: Host, name: str) -> None:
        """Delete a stream's file, if there is one."""
        self._path(host, name).unlink(missing_ok=True)

    def _path(self, host: Host, name: str) -> Path:
        return self._root / host.name / f"{name}.state"


def to_bytes(session: Session) -> bytes:
    """What the file of a stream holds."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stream.state"
        session.save(path)
        return path.read_bytes()


def from_bytes(host: Host, data: bytes) -> Session:
    """A stream from the bytes of a file.

    Raises:
        RequestError: They hold no stream of this model.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stream.state"
        path.write_bytes(data)
        try:
            return host.model.restore(path)
        except StateError as error:
            reason = str(error).replace(str(path), "it")
            raise RequestError(
                f"the body is no saved stream of {host.name}: {reason}", code="invalid_state"
            ) from error

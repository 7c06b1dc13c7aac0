"""Streams as files in a folder, and as bytes."""

from __future__ import annotations

import logging
import os
import re
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import OtherModelError, StateError
from ..files import make_folder
from ..streams.session import Session
from .errors import RequestError
from .host import Host

__all__ = ["Stamp", "StreamFolder", "from_bytes", "is_id", "to_bytes"]

log = logging.getLogger("rillet.serve")

_ID = re.compile(r"[0-9a-f]{32}")

Stamp = tuple[int, int, int]
"""What changes when a file does."""


def is_id(name: str) -> bool:
    """Whether a stream can have this name: no other reaches the disk."""
    return _ID.fullmatch(name) is not None


class StreamFolder:
    """The files of all streams: ``MODEL/ID.state``.

    All methods raise a :class:`RequestError` if the disk fails, which tells clients why and no
    path, and the log both.

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
        with _disk_errors(), os.scandir(self._root / host.name) as entries:
            files = [entry.name for entry in entries if entry.is_file()]
        found = [file.removesuffix(".state") for file in files if file.endswith(".state")]
        return [name for name in found if is_id(name)]

    def stamp(self, host: Host, name: str) -> Stamp | None:
        """A stream's file as it is now; ``None`` if there is none."""
        path = self._path(host, name)
        with _disk_errors():
            try:
                status = path.stat()
            except FileNotFoundError:
                path.parent.stat()  # the stream is gone only if its folder is there
                return None
        if not stat.S_ISREG(status.st_mode):
            return None
        return status.st_mtime_ns, status.st_ino, status.st_size

    def save(self, host: Host, name: str, session: Session) -> None:
        """Write a stream to its file."""
        with _disk_errors():
            session.save(self._path(host, name))

    def read(self, host: Host, name: str) -> Session:
        """Read a stream from its file."""
        try:
            return host.model.restore(self._path(host, name))
        except OtherModelError as error:
            raise RequestError(
                f"the stream {name} was written with another model than today's {host.name}; "
                "delete it, or replace it with PUT /v1/streams/{id}/state",
                409,
                code="other_model",
            ) from error
        except StateError as error:
            log.error("%s", error)
            raise RequestError(
                f"the file of the stream {name} cannot be read: it is damaged; delete the stream, "
                "or replace it with PUT /v1/streams/{id}/state",
                500,
                code="damaged_stream",
            ) from error

    def delete(self, host: Host, name: str) -> None:
        """Delete a stream's file, if there is one."""
        with _disk_errors():
            self._path(host, name).unlink(missing_ok=True)

    def _path(self, host: Host, name: str) -> Path:
        return self._root / host.name / f"{name}.state"


@contextmanager
def _disk_errors() -> Iterator[None]:
    """Tell clients that the disk fails, and why; the paths are for the log alone."""
    try:
        yield
    except OSError as error:  # a StorageError is one, too
        log.error("%s", error)
        reason = type(error).__name__ if error.errno is None else os.strerror(error.errno)
        raise RequestError(
            f"the server's storage of streams fails ({reason}), and nothing has changed; try again "
            "when whoever runs it has mended that",
            507,
            code="storage",
        ) from error


def to_bytes(session: Session) -> bytes:
    """What the file of a stream holds."""
    with _disk_errors(), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stream.state"
        session.save(path)
        return path.read_bytes()


def from_bytes(host: Host, data: bytes) -> Session:
    """A stream from the bytes of a file.

    Raises:
        RequestError: They hold no stream of this model.
    """
    with _disk_errors(), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stream.state"
        path.write_bytes(data)
        try:
            return host.model.restore(path)
        except StateError as error:
            reason = str(error).replace(str(path), "it")
            reason = reason.replace(str(host.model.bundle.path), host.name)
            raise RequestError(
                f"the body is no saved stream of {host.name}: {reason}", code="invalid_state"
            ) from error

"""Streams as resources: open in memory, and saved in a folder.

With a folder, a stream is saved before the answer to whatever changed it, and read again when its
file has changed since. So a stream may be used through any server that shares the folder, and an
idle one takes no memory.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ..streams.session import Session
from .errors import RequestError
from .host import Host
from .limits import Limits
from .saved_streams import Stamp, StreamFolder, from_bytes, is_id

__all__ = ["OpenStream", "StreamStore"]

_CLOSING = 500
"""How often to look whether streams are saved, fifty times a second."""


@dataclass(eq=False)
class OpenStream:
    """A stream that is open here.

    Attributes:
        id: Its name: whoever knows it, and has a key, may use the stream.
        host: Its model.
        session: The stream.
        stamp: Its file, as it was when it was saved or read; ``None`` if it is not saved.
        is_busy: Whether a request uses it.
        used: When it was last used, in seconds of a clock that only runs.
    """

    id: str
    host: Host
    session: Session
    stamp: Stamp | None = None
    is_busy: bool = False
    used: float = field(default_factory=time.monotonic)


class StreamStore:
    """All streams of a server.

    Args:
        hosts: The models.
        limits: What is taken on at most.
        folder: Where streams are saved; nowhere if absent.
    """

    def __init__(self, hosts: Iterable[Host], limits: Limits, folder: Path | None) -> None:
        self._hosts, self._limits = list(hosts), limits
        self._open: dict[str, OpenStream] = {}
        self._opening: set[str] = set()
        names = [host.name for host in self._hosts]
        self._folder = None if folder is None else StreamFolder(folder, names)

    def __len__(self) -> int:
        return len(self._open)

    async def listed(self) -> list[tuple[str, Host]]:
        """Every stream, open or saved, with its model."""
        if self._folder is None:
            found = {stream.id: stream.host for stream in self._open.values()}
        else:
            found = {name: host for host in self._hosts for name in await self._saved(host)}
        return sorted(found.items(), key=lambda entry: entry[0])

    # Opening.

    async def create(self, host: Host, session: Session) -> OpenStream:
        """Add a stream, under a name that nobody can guess."""
        return await self._add(OpenStream(secrets.token_hex(16), host, session))

    async def _add(self, stream: OpenStream) -> OpenStream:
        """Add a stream, or replace that of its name."""
        if self.host_of(stream.id) is None:
            self._opening.add(stream.id)
            try:
                await self._check_room_on_disk(stream.host)
            finally:
                self._opening.discard(stream.id)
        if stream.id not in self._open:
            self._make_room()
        self._open[stream.id] = stream
        async with self._changing(stream):
            return stream

    @asynccontextmanager
    async def use(self, name: str, changes: bool = True) -> AsyncIterator[OpenStream]:
        """Use a stream alone; what has changed is saved at the end, or has not happened.

        Args:
            name: Its id.
            changes: Whether the use changes it.

        Raises:
            RequestError: There is none, another request uses it, or it cannot be saved.
        """
        stream = await self._find(name)
        async with self._changing(stream, changes):
            yield stream

    @asynccontextmanager
    async def _changing(self, stream: OpenStream, changes: bool = True) -> AsyncIterator[None]:
        stream.is_busy = True
        try:
            yield
        finally:
            try:
                if changes:
                    await asyncio.shield(self._save(stream))
            except Exception:
                # Whoever is told of it may ask for the same again: from where the file stands.
                self._open.pop(stream.id, None)
                raise
            finally:
                stream.is_busy, stream.used = False, time.monotonic()

    async def put(self, name: str, data: bytes, host: Host) -> OpenStream:
        """Replace a stream by what a file holds, or add it under that name."""
        if not is_id(name):
            raise RequestError(
                f"the stream's id is {name[:40]!r}; it must be 32 digits of 0-9 and a-f"
            )
        session = await host.turns.call(lambda: from_bytes(host, data))
        self._check_free(name)
        owner = self.host_of(name)
        if owner is not None and owner is not host:
            raise RequestError(
                f"the stream is of {owner.name} and the file of {host.name}; put it under another "
                "id",
                409,
            )
        return await self._add(OpenStream(name, host, session))

    async def delete(self, name: str) -> None:
        """Forget a stream, and delete its file, whatever that holds."""
        self._check_free(name)
        host = self.host_of(name)
        if host is None:
            raise self._missing(name)
        if self._folder is not None:
            self._folder.delete(host, name)
        self._open.pop(name, None)

    def _check_free(self, name: str) -> None:
        stream = self._open.get(name)
        if name in self._opening or (stream is not None and stream.is_busy):
            raise RequestError(
                f"the stream {name} is in use by another request; wait for its answer",
                409,
                code="busy",
                retry_after=1,
            )

    def _missing(self, name: str) -> RequestError:
        self._open.pop(name, None)  # deleted elsewhere
        return RequestError(
            f"there is no stream {name[:40]!r}; open one with POST /v1/streams",
            404,
            code="stream_not_found",
        )

    async def _find(self, name: str) -> OpenStream:
        self._check_free(name)
        stream = self._open.get(name)
        if stream is not None and self._is_current(stream):
            return stream
        folder, host = self._folder, self.host_of(name)
        if folder is None or host is None:
            raise self._missing(name)
        self._open.pop(name, None)  # saved elsewhere
        self._opening.add(name)
        try:
            stamp = folder.stamp(host, name)
            session = await host.turns.call(lambda: folder.read(host, name))
            self._make_room()
        except RequestError:
            if self.host_of(name) is None:  # deleted elsewhere, just now
                raise self._missing(name) from None
            raise
        finally:
            self._opening.discard(name)
        stream = self._open[name] = OpenStream(name, host, session, stamp)
        return stream

    def _is_current(self, stream: OpenStream) -> bool:
        """Whether nobody else has saved the stream since, or deleted it."""
        if (folder := self._folder) is None:
            return True
        return folder.stamp(stream.host, stream.id) == stream.stamp

    def host_of(self, name: str) -> Host | None:
        """The model of a stream; ``None`` if there is no such stream."""
        if (folder := self._folder) is None:
            stream = self._open.get(name)
            return None if stream is None else stream.host
        if not is_id(name):
            return None
        saved = (host for host in self._hosts if folder.stamp(host, name) is not None)
        return next(saved, None)

    # Saving, and making room.

    async def _save(self, stream: OpenStream) -> None:
        if (folder := self._folder) is None:
            return
        host = stream.host
        await host.turns.call(lambda: folder.save(host, stream.id, stream.session))
        stream.stamp = folder.stamp(host, stream.id)

    async def _check_room_on_disk(self, host: Host) -> None:
        saved = len(await self._saved(host))
        if saved >= self._limits.saved_streams:
            raise _too_many(saved)

    async def _saved(self, host: Host) -> list[str]:
        """The saved streams of a model: a folder of many takes long to read."""
        folder = self._folder
        return [] if folder is None else await host.turns.call(lambda: folder.names(host))

    def _make_room(self) -> None:
        """Make room in memory."""
        if len(self._open) < self._limits.streams:
            return
        idle = [one for one in self._open.values() if not one.is_busy]
        if self._folder is None or not idle:
            raise _too_many(len(self._open))
        self._drop(min(idle, key=lambda one: one.used))

    def tidy(self) -> None:
        """Let idle streams leave the memory; they are saved."""
        if self._folder is None:
            return
        oldest = time.monotonic() - self._limits.idle_seconds
        for stream in list(self._open.values()):
            if not stream.is_busy and stream.used < oldest:
                self._drop(stream)

    def _drop(self, stream: OpenStream) -> None:
        del self._open[stream.id]
        stream.session.close()

    async def close(self) -> None:
        """Wait until what is still in use is saved: its requests have been cut off."""
        for _ in range(_CLOSING):
            if not any(stream.is_busy for stream in self._open.values()):
                return
            await asyncio.sleep(0.02)


def _too_many(count: int) -> RequestError:
    return RequestError(
        f"there are {count:,} streams, and no more are taken; delete some with "
        "DELETE /v1/streams/{id}",
        429,
        code="too_many_streams",
        retry_after=60,
    )

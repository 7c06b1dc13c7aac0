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

    def listed(self) -> list[tuple[str, Host]]:
        """Every stream, open or saved, with its model."""
        found = {stream.id: stream.host for stream in self._open.values()}
        for host in self._hosts:
            if self._folder is not None:
                found |= dict.fromkeys(self._folder.names(host), host)
        return sorted(found.items(), key=lambda entry: entry[0])

    # Opening.

    async def create(self, host: Host, session: Session) -> OpenStream:
        """Add a stream, under a name that nobody can guess."""
        return await self._add(OpenStream(secrets.token_hex(16), host, session))

    async def _add(self, stream: OpenStream) -> OpenStream:
        await self._make_room(stream.host)
        self._open[stream.id] = stream
        await self._save(stream)
        return stream

    @asynccontextmanager
    async def use(self, name: str, changes: bool = True) -> AsyncIterator[OpenStream]:
        """Use a stream alone; what has changed is saved at the end.

        Args:
            name: Its id.
            changes: Whether the use changes it.

        Raises:
            RequestError: There is none, or another request uses it.
        """
        stream = await self._find(name)
        stream.is_busy = True
        try:
            yield stream
        finally:
            try:
                if changes:
                    await asyncio.shield(self._save(stream))
            finally:
                stream.is_busy, stream.used = False, time.monotonic()

    async def put(self, name: str, data: bytes, host: Host) -> OpenStream:
        """Replace a stream by what a file holds, or add it under that name."""
        if not is_id(name):
            raise RequestError(
                f"the stream's id is {name[:40]!r}; it must be 32 digits of 0-9 and a-f"
            )
        session = await host.turns.call(lambda: from_bytes(host, data))
        if name not in self._open and self._host_of(name) is None:
            return await self._add(OpenStream(name, host, session))
        async with self.use(name) as stream:
            if stream.host is not host:
                raise RequestError(
                    f"the stream is of {stream.host.name} and the file of {host.name}; put it "
                    "under another id",
                    409,
                )
            stream.session = session
        return stream

    async def delete(self, name: str) -> None:
        """Forget a stream, and delete its file."""
        async with self.use(name, changes=False) as stream:
            self._open.pop(name, None)
            if self._folder is not None:
                self._folder.delete(stream.host, name)

    async def _find(self, name: str) -> OpenStream:
        stream = self._open.get(name)
        if name in self._opening or (stream is not None and stream.is_busy):
            raise RequestError(
                f"the stream {name} is in use by another request; wait for its answer",
                409,
                code="busy",
                retry_after=1,
            )
        if stream is not None and self._is_current(stream):
            return stream
        folder, host = self._folder, self._host_of(name)
        if folder is None or host is None:
            self._open.pop(name, None)  # deleted elsewhere
            raise RequestError(
                f"there is no stream {name[:40]!r}; open one with POST /v1/streams",
                404,
                code="stream_not_found",
            )
        self._opening.add(name)
        try:
            stamp = folder.stamp(host, name)
            session = await host.turns.call(lambda: folder.read(host, name))
            if stream is None:
                await self._make_room(host)
        finally:
            self._opening.discard(name)
        stream = self._open[name] = OpenStream(name, host, session, stamp)
        return stream

    def _is_current(self, stream: OpenStream) -> bool:
        """Whether nobody else has saved the stream since, or deleted it."""
        return self._folder is None or self._folder.stamp(stream.host, stream.id) == stream.stamp

    def _host_of(self, name: str) -> Host | None:
        """The model of a saved stream; ``None`` if there is no such stream."""
        if self._folder is None or not is_id(name):
            return None
        for host in self._hosts:
            if self._folder.stamp(host, name) is not None:
                return host
        return None

    # Saving, and making room.

    async def _save(self, stream: OpenStream) -> None:
        if (folder := self._folder) is None:
            return
        host = stream.host
        await host.turns.call(lambda: folder.save(host, stream.id, stream.session))
        stream.stamp = folder.stamp(host, stream.id)

    async def _make_room(self, host: Host) -> None:
        if (folder := self._folder) is not None:
            saved = await host.turns.call(lambda: len(folder.names(host)))
            if saved >= self._limits.saved_streams:
                raise _too_many(saved)
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

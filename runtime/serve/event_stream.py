"""Answers that come as they are written: server-sent events, and what ends them early."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..errors import RilletError
from .errors import error_body, status_of

__all__ = ["EventStream", "unless_gone"]

T = TypeVar("T")

_BODY = "http.response.body"
_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}


class Gone(Exception):  # noqa: N818 - nobody sees it
    """The client has closed the connection."""


class EventStream(Response):
    """Sends events as they come; when the client goes away, their source is closed at once.

    Args:
        first: The first event: it is waited for before the answer begins, so that what is refused
            is refused with a status.
        events: The others; an asynchronous generator.
    """

    media_type = "text/event-stream"

    def __init__(self, first: bytes, events: AsyncGenerator[bytes, None]) -> None:
        super().__init__(headers=_HEADERS)
        del self.headers["content-length"]
        self._first, self.events = first, events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        start = {
            "type": "http.response.start",
            "status": self.status_code,
            "headers": self.raw_headers,
        }
        sender = asyncio.ensure_future(self._send(start, send))
        leaver = asyncio.ensure_future(left(receive))
        try:
            await asyncio.wait([sender, leaver], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sender, leaver):
                task.cancel()
            await asyncio.wait([sender, leaver])
        if not sender.cancelled() and (error := sender.exception()) is not None:
            raise error

    async def _send(self, start: dict[str, Any], send: Send) -> None:
        await send(start)
        try:
            await send({"type": _BODY, "body": self._first, "more_body": True})
            async for event in self.events:
                await send({"type": _BODY, "body": event, "more_body": True})
            end = b"data: [DONE]\n\n"
        except RilletError as error:
            content = json.dumps(error_body(str(error), status_of(error)))
            end = f"data: {content}\n\n".encode()
        finally:
            await self.events.aclose()
        await send({"type": _BODY, "body": end, "more_body": False})


async def left(receive: Receive) -> None:
    """Wait until the client has closed the connection; its request was read already."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Do some work, unless the client goes away: it is cancelled then.

    Raises:
        Gone: The client went away.
    """
    worker = asyncio.ensure_future(work)
    leaver = asyncio.ensure_future(left(request.receive))
    try:
        await asyncio.wait([worker, leaver], return_when=asyncio.FIRST_COMPLETED)
        if worker.done():
            return worker.result()
        raise Gone
    finally:
        for task in (worker, leaver):
            task.cancel()
        await asyncio.wait([worker, leaver])

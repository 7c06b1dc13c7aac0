"""What every request passes: who may come in, how large a body may be, and what is logged."""

from __future__ import annotations

import hmac
import logging
import secrets
import time
import traceback
from collections.abc import Sequence
from hashlib import sha256

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import RilletError
from .errors import RequestError, error_body, status_of
from .event_stream import Gone
from .metrics import Metrics

__all__ = ["Guard"]

log = logging.getLogger("rillet.serve")

_ROUTING = {404: "there is no such path", 405: "the path does not know this method"}


class Guard:
    """Checks keys, hosts and sizes; numbers, logs and counts requests; answers errors.

    It logs a request's number, method, route, status and time, and never a text.

    Args:
        app: What answers.
        keys: The keys that open it; none leaves it open.
        open_paths: Paths that need no key: they say nothing of what is written.
        hosts: The names by which it may be called; any if empty. A page from elsewhere could
            otherwise call a server on this machine by a name of its own.
        body_bytes: Bytes of a body.
        state_bytes: Bytes of the body of a saved stream.
        metrics: Where requests are counted.
    """

    def __init__(
        self,
        app: ASGIApp,
        keys: Sequence[str],
        open_paths: frozenset[str],
        hosts: frozenset[str],
        body_bytes: int,
        state_bytes: int,
        metrics: Metrics,
    ) -> None:
        self._app, self._hosts, self._metrics = app, hosts, metrics
        self._open_paths = open_paths
        self._keys = [key.encode() for key in keys]
        self._body_bytes, self._state_bytes = body_bytes, state_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        number, began, status = f"req-{secrets.token_hex(8)}", time.perf_counter(), 0

        async def numbered(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = [(b"x-request-id", number.encode()), (b"x-content-type-options", b"nosniff")]
                message = {**message, "headers": [*message["headers"], *own]}
            await send(message)

        try:
            refusal = await self._answer(scope, receive, numbered)
            if refusal is not None and not status:
                await _refused(refusal)(scope, receive, numbered)
        except Gone:
            status = status or 499  # nginx's number for it
        finally:
            route = scope.get("rillet.route", "other")
            self._metrics.requests.labels(route, status).inc()
            seconds = time.perf_counter() - began
            log.info("%s %s %s %d %.1f ms", number, scope["method"], route, status, seconds * 1e3)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> RilletError | None:
        """Let the application answer; what it raised instead."""
        try:
            self._admit(scope)
            scope["app"] = self  # the router raises what it refuses, then
            await self._app(scope, self._bounded(scope, receive), send)
        except RilletError as error:
            return error
        except Gone:
            raise
        except ClientDisconnect:  # in the middle of its body, or that was no HTTP
            raise Gone from None
        except HTTPException as error:  # of the router
            reason = _ROUTING.get(error.status_code, error.detail)
            return RequestError(f"{reason}; /openapi.json lists what there is", error.status_code)
        except Exception as error:
            # Not the message, which may quote what somebody wrote.
            places = "".join(traceback.format_tb(error.__traceback__))
            log.error("%s\n%s", type(error).__name__, places)
            return RequestError(
                "the server itself failed; its log tells more of the request with this "
                "x-request-id",
                500,
            )
        return None

    def _admit(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
        if self._hosts and name.strip("[]").lower() not in self._hosts:
            raise RequestError(
                f"the request is for {host[:80]!r}, and this server answers for this machine "
                "alone; call it by 127.0.0.1 or localhost, or start it with --host and a key",
                403,
            )
        if not self._keys or scope["path"] in self._open_paths:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        # Every key is compared, so that the time tells nothing.
        matches = [hmac.compare_digest(given.strip().encode(), key) for key in self._keys]
        if scheme.lower() != "bearer" or not any(matches):
            raise RequestError(
                "the key is missing or wrong; send the header Authorization: Bearer KEY",
                401,
                code="invalid_api_key",
            )
        key = self._keys[matches.index(True)]
        scope.setdefault("state", {})["key"] = sha256(key).hexdigest()[:8]

    def _bounded(self, scope: Scope, receive: Receive) -> Receive:
        """Refuse a body once it is too long, whatever its header says."""
        is_state = scope["path"].endswith("/state")
        most = self._state_bytes if is_state else self._body_bytes
        size = 0

        async def bounded() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > most:
                raise RequestError(
                    f"the body has more than {most:,} bytes; this server takes no more: feed a "
                    "stream piece by piece",
                    413,
                    code="too_large",
                )
            return message

        return bounded


def _refused(error: RilletError) -> JSONResponse:
    status = status_of(error)
    code, param, headers = None, None, {}
    if isinstance(error, RequestError):
        code, param = error.code, error.param
        if error.retry_after is not None:
            headers["retry-after"] = str(error.retry_after)
        if status == 401:
            headers["www-authenticate"] = "Bearer"
    return JSONResponse(error_body(str(error), status, code, param), status, headers)

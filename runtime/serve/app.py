"""The server as an ASGI application."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route as StarletteRoute

from .. import __version__
from ..model import Model
from .errors import error_body
from .guard import Guard
from .host import Host
from .limits import Limits
from .metrics import Metrics
from .openapi import describe
from .routes import ROUTES, Handler
from .served import Served
from .store import StreamStore

__all__ = ["Settings", "application"]

_TIDY_SECONDS = 5.0
"""How often idle streams are looked for."""


@dataclass(frozen=True)
class Settings:
    """How to serve.

    Attributes:
        limits: What is taken on at most.
        sessions: The folder where streams are saved; nowhere if absent.
        keys: The keys that open the server; none leaves it open.
        hosts: The names by which it may be called; any if empty.
        cors_origins: Origins of web pages that may call it.
    """

    limits: Limits = field(default_factory=Limits)
    sessions: Path | None = None
    keys: Sequence[str] = ()
    hosts: frozenset[str] = frozenset()
    cors_origins: Sequence[str] = ()


def application(models: dict[str, Model], settings: Settings) -> Starlette:
    """Build the application.

    Args:
        models: The models, by the names that clients call them.
        settings: How to serve them.
    """
    metrics, limits = Metrics(), settings.limits
    hosts = {name: Host(name, model, limits, metrics) for name, model in models.items()}
    store = StreamStore(hosts.values(), limits, settings.sessions)
    served = Served(hosts, store, limits, metrics)
    metrics.streams.set_function(lambda: len(store))
    for host in hosts.values():
        metrics.watch_line(host.name, _rows(host), _waiting(host))
    description = describe(ROUTES, __version__)
    page = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")

    async def openapi(request: Request) -> Response:
        return JSONResponse(description)

    async def index(request: Request) -> Response:
        return HTMLResponse(page, headers={"content-security-policy": _POLICY})

    routes = [
        StarletteRoute(route.path, _endpoint(route.path, route.handler, served), methods=[route.method])
        for route in ROUTES
    ]
    routes += [StarletteRoute("/openapi.json", openapi), StarletteRoute("/", index)]
    middleware = [
        Middleware(
            Guard,
            keys=settings.keys,
            hosts=settings.hosts,
            body_bytes=limits.body_bytes,
            state_bytes=_state_bytes(models),
            metrics=metrics,
        )
    ]
    if settings.cors_origins:
        cors = Middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["*"],
            allow_headers=["*"],
        )
        middleware.insert(0, cors)
    return Starlette(
        routes=routes,
        middleware=middleware,
        exception_handlers={HTTPException: _refused},
        lifespan=lambda _: _running(served),
    )


_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The page is one file and talks to its own server alone."""


@contextlib.asynccontextmanager
async def _running(served: Served) -> AsyncIterator[None]:
    """Start the models' threads, and end them when the server does."""
    for host in served.hosts.values():
        host.open()
    tidying = asyncio.create_task(_tidy(served.store))
    try:
        yield
    finally:
        tidying.cancel()
        await served.store.close()
        for host in served.hosts.values():
            await asyncio.to_thread(host.close)


async def _tidy(store: StreamStore) -> None:
    while True:
        await asyncio.sleep(_TIDY_SECONDS)
        store.tidy()


def _endpoint(
    path: str, handler: Handler, served: Served
) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        request.scope["rillet.route"] = path
        return await handler(request, served)

    return endpoint


async def _refused(request: Request, error: Exception) -> Response:
    """What the router refuses, in the shape of the other errors."""
    assert isinstance(error, HTTPException)
    known = {404: "there is no such path", 405: "the path does not know this method"}
    reason = known.get(error.status_code, error.detail)
    body = error_body(f"{reason}; /openapi.json lists what there is", error.status_code)
    return JSONResponse(body, error.status_code, error.headers)


def _state_bytes(models: dict[str, Model]) -> int:
    """Bytes that a saved stream may have: both copies of its state, and its texts."""
    sizes = [sum(row.zeros(1).nbytes for row in model.bundle.state) for model in models.values()]
    return 2 * max(sizes) + (1 << 20)


def _rows(host: Host) -> Callable[[], float]:
    return lambda: host.line.rows


def _waiting(host: Host) -> Callable[[], float]:
    return lambda: host.line.waiting

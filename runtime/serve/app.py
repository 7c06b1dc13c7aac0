"""The server as an ASGI application."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route as StarletteRoute
from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from .. import __version__
from ..model import Model
from .guard import Guard
from .host import Host
from .limits import Limits
from .metrics import Metrics
from .openapi import describe
from .page_files import page_routes
from .routes import ROUTES, Route
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


def application(models: dict[str, Model], settings: Settings) -> ASGIApp:
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

    async def openapi(request: Request) -> Response:
        return JSONResponse(description)

    routes = [
        StarletteRoute(route.path, _Endpoint(route, served), methods=[route.method])
        for route in ROUTES
    ]
    page = page_routes()
    routes += [StarletteRoute("/openapi.json", openapi), *page]
    app: ASGIApp = Guard(
        Router(routes, lifespan=lambda _: _running(served)),
        keys=settings.keys,
        open_paths=frozenset({"/health", "/openapi.json", *(route.path for route in page)}),
        hosts=settings.hosts,
        body_bytes=limits.body_bytes,
        state_bytes=_state_bytes(models),
        metrics=metrics,
    )
    if settings.cors_origins:
        origins = list(settings.cors_origins)
        app = CORSMiddleware(app, allow_origins=origins, allow_methods=["*"], allow_headers=["*"])
    return app


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


class _Endpoint:
    """A route's handler as an application of its own: nothing stands between it and its client."""

    def __init__(self, route: Route, served: Served) -> None:
        self._route, self._served = route, served

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        scope["rillet.route"] = self._route.path
        answer = await self._route.handler(Request(scope, receive), self._served)
        await answer(scope, receive, send)


def _state_bytes(models: dict[str, Model]) -> int:
    """Bytes that a saved stream may have: both copies of its state, and its texts."""
    sizes = [sum(row.zeros(1).nbytes for row in model.bundle.state) for model in models.values()]
    return 2 * max(sizes) + (1 << 20)


def _rows(host: Host) -> Callable[[], float]:
    return lambda: host.line.rows


def _waiting(host: Host) -> Callable[[], float]:
    return lambda: host.line.waiting

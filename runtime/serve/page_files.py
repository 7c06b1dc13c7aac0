"""The page at ``/``: the files of ``page/``, which web/demo runs without a server."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

__all__ = ["page_routes"]

_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
}

_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cache-control": "no-cache",
}
"""The page loads its own files, and talks to its own server alone."""


def page_routes() -> list[Route]:
    """A route for each file of the page."""
    found = sorted((Path(__file__).parent / "page").iterdir())
    return [_route(file) for file in found if file.suffix in _TYPES]


def _route(file: Path) -> Route:
    content = file.read_bytes()

    async def answer(request: Request) -> Response:
        return Response(content, headers=_HEADERS, media_type=_TYPES[file.suffix])

    return Route("/" if file.name == "index.html" else f"/{file.name}", answer)

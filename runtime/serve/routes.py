"""Every path of the server, with what answers it and what its description says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from . import about, completions, stream_routes
from .bodies import Completion, NewStream, StreamCompletion, Text
from .served import Served

__all__ = ["ROUTES", "Handler", "Route"]

Handler = Callable[[Request, Served], Awaitable[Response]]

JSON, EVENTS, BYTES = "application/json", "text/event-stream", "application/octet-stream"


@dataclass(frozen=True)
class Route:
    """A path and a method.

    Attributes:
        method: The method.
        path: The path; ``{id}`` stands for a name.
        handler: What answers.
        body: The body's model; ``bytes`` for a file.
        kinds: Media types of the answer.
        status: Its status, if all goes well.
        refusals: Other statuses, besides those that any request may meet.
        asks_for_model: Whether ``?model=`` chooses a model.
    """

    method: str
    path: str
    handler: Handler
    body: type[BaseModel] | type[bytes] | None = None
    kinds: tuple[str, ...] = (JSON,)
    status: int | None = 200
    refusals: tuple[int, ...] = ()
    asks_for_model: bool = False

    @property
    def summary(self) -> str:
        """What it does, in a line."""
        return (self.handler.__doc__ or "").partition("\n")[0]


_WRITES = (404, 413, 415, 429, 500)
_STREAM = (404, 409, 500, 507)
_ONE = "/v1/streams/{id}"

ROUTES = (
    Route(
        "POST", "/v1/completions", completions.complete, Completion, (JSON, EVENTS), 200, _WRITES
    ),
    Route("POST", "/v1/chat/completions", completions.chat, status=None, refusals=(404,)),
    Route("GET", "/v1/models", about.models),
    Route("GET", "/v1/models/{id}", about.model, refusals=(404,)),
    Route("GET", "/v1/streams", stream_routes.listed, refusals=(507,)),
    Route(
        "POST", "/v1/streams", stream_routes.create, NewStream, status=201, refusals=(507, *_WRITES)
    ),
    Route("GET", _ONE, stream_routes.show, refusals=_STREAM),
    Route("DELETE", _ONE, stream_routes.delete, refusals=_STREAM),
    Route("POST", f"{_ONE}/feed", stream_routes.feed, Text, refusals=(*_STREAM, *_WRITES)),
    Route("POST", f"{_ONE}/learn", stream_routes.learn, Text, refusals=(*_STREAM, *_WRITES)),
    Route("POST", f"{_ONE}/score", stream_routes.score, Text, refusals=(*_STREAM, *_WRITES)),
    Route("POST", f"{_ONE}/fork", stream_routes.fork, status=201, refusals=(429, *_STREAM)),
    Route(
        "POST",
        f"{_ONE}/completions",
        stream_routes.complete,
        StreamCompletion,
        (JSON, EVENTS),
        200,
        (*_STREAM, *_WRITES),
    ),
    Route("GET", f"{_ONE}/state", stream_routes.save, kinds=(BYTES,), refusals=_STREAM),
    Route(
        "PUT",
        f"{_ONE}/state",
        stream_routes.load,
        bytes,
        refusals=(413, 429, *_STREAM),
        asks_for_model=True,
    ),
    Route("GET", "/health", about.health),
    Route("GET", "/props", about.props, refusals=(404,), asks_for_model=True),
    Route("GET", "/metrics", about.metrics, kinds=("text/plain",)),
)

"""What a server serves, and what its handlers share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from .errors import RequestError, invalid_body
from .host import Host
from .limits import Limits
from .metrics import Metrics
from .store import StreamStore

__all__ = ["Served", "body_of", "client_of"]

B = TypeVar("B", bound=BaseModel)


@dataclass
class Served:
    """The models, the streams and the figures of a server."""

    hosts: dict[str, Host]
    store: StreamStore
    limits: Limits
    metrics: Metrics

    def host(self, name: str | None) -> Host:
        """The model of that name; the only one, or the first, without a name.

        Raises:
            RequestError: There is none.
        """
        if name is None:
            return next(iter(self.hosts.values()))
        if name not in self.hosts:
            raise RequestError(
                f"there is no model {name[:80]!r}; there {_are(self.hosts)}",
                404,
                code="model_not_found",
                param="model",
            )
        return self.hosts[name]


def _are(names: Iterable[str]) -> str:
    listed = ", ".join(map(repr, names))
    return f"are {listed}" if "," in listed else f"is {listed}"


async def body_of(request: Request, kind: type[B]) -> B:
    """A request's body, checked.

    Raises:
        RequestError: It is no JSON, or not of this kind.
    """
    kind_of_body = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind_of_body != "application/json":
        raise RequestError(
            f"the content type is {kind_of_body[:40]!r}; send JSON, and the header "
            "Content-Type: application/json",
            415,
        )
    body = await request.body()
    if not body:
        raise RequestError("the body is empty; send a JSON object, such as {}", code="invalid_json")
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise invalid_body(error, kind) from None


def client_of(request: Request) -> str:
    """Whose request it is: that of a key, or else of an address."""
    key = getattr(request.state, "key", None)
    address = "" if request.client is None else request.client.host
    return str(address if key is None else f"{key}@{address}")

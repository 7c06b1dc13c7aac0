"""The server's description of itself: OpenAPI 3.1, made of the table of routes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from .routes import Route

__all__ = ["describe"]

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}

_REASONS = {
    400: "The request can never work.",
    401: "The key is missing or wrong.",
    403: "The server is called by a name that is not its own.",
    404: "There is no such model or stream, or the model cannot do that.",
    409: "The stream is in use.",
    413: "The text or the body is too long.",
    415: "The body is no JSON.",
    429: "Too much is asked for at once; try again later.",
    500: "The model failed, or the stream's file is damaged.",
    507: "The server cannot store streams.",
}

_ANY = (400, 401, 403)


def describe(routes: Iterable[Route], version: str) -> dict[str, Any]:
    """The whole description.

    Args:
        routes: The routes.
        version: The version of rillet.
    """
    routes = list(routes)
    bodies = {body.__name__: body for route in routes if (body := _model(route)) is not None}
    _, definitions = models_json_schema(
        [(body, "validation") for _, body in sorted(bodies.items())],
        ref_template="#/components/schemas/{model}",
    )
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "rillet", "version": version},
        "paths": paths,
        "components": {
            "schemas": {**definitions.get("$defs", {}), "Error": _ERROR},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def _model(route: Route) -> type[BaseModel] | None:
    body = route.body
    return body if body is not None and issubclass(body, BaseModel) else None


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": f"{route.method.lower()}{re.sub('[^a-z]+', '_', route.path)}".strip("_"),
        "summary": route.summary,
        "responses": _responses(route),
    }
    parameters = [_parameter("path", "id")] if "{id}" in route.path else []
    if route.asks_for_model:
        parameters.append(_parameter("query", "model"))
    if parameters:
        operation["parameters"] = parameters
    if route.body is bytes:
        content: dict[str, Any] = {"application/octet-stream": {"schema": {"type": "string"}}}
        operation["requestBody"] = {"required": True, "content": content}
    elif route.body is not None:
        reference = {"$ref": f"#/components/schemas/{route.body.__name__}"}
        content = {"application/json": {"schema": reference}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _parameter(place: str, name: str) -> dict[str, Any]:
    schema = {"type": "string", "minLength": 1}
    return {"in": place, "name": name, "required": place == "path", "schema": schema}


def _responses(route: Route) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    if route.status is not None:
        kinds = {kind: {"schema": _answer(kind)} for kind in route.kinds}
        responses[str(route.status)] = {"description": route.summary, "content": kinds}
    for status in sorted({*_ANY, *route.refusals}):
        content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
        responses[str(status)] = {"description": _REASONS[status], "content": content}
    return responses


def _answer(kind: str) -> dict[str, Any]:
    return {"type": "object"} if kind == "application/json" else {"type": "string"}

"""Errors as HTTP answers, in the shape of OpenAI's."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ValidationError

from ..errors import EngineError, RilletError, StorageError, brief

__all__ = ["RequestError", "error_body", "invalid_body", "status_of"]

_KINDS = {401: "authentication_error", 429: "rate_limit_error"}


class RequestError(RilletError):
    """A request that is refused.

    Args:
        message: What is wrong, and what to do.
        status: The HTTP status.
        code: A word for programs.
        param: The field that is wrong.
        retry_after: Seconds after which another try makes sense.
    """

    def __init__(
        self,
        message: str,
        status: int = 400,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param
        self.retry_after = retry_after


def status_of(error: RilletError) -> int:
    """The HTTP status of an error of the library."""
    if isinstance(error, RequestError):
        return error.status
    if isinstance(error, StorageError):
        return 507
    return 500 if isinstance(error, EngineError) else 400


def error_body(
    message: str, status: int, code: str | None = None, param: str | None = None
) -> dict[str, Any]:
    """An error as OpenAI's clients read it."""
    kind = _KINDS.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def invalid_body(error: ValidationError, kind: type[BaseModel]) -> RequestError:
    """What is wrong with a body: its first fault.

    Args:
        error: All its faults.
        kind: What it should be. A field that may be of several types has a description, for the
            faults of each type together say less, and pydantic counts the type to the field's name.
    """
    fault = error.errors(include_url=False)[0]
    place = [str(part) for part in fault["loc"] if isinstance(part, int | str)]
    field = ".".join(place)
    if fault["type"] == "extra_forbidden":
        return RequestError(
            f"the field {field!r} is unknown; /openapi.json lists those that there are",
            code="unknown_field",
            param=field,
        )
    if fault["type"] == "missing":
        return RequestError(
            f"{field} is missing; /openapi.json says what it holds",
            code="missing_field",
            param=field,
        )
    if fault["type"] == "json_invalid":
        return RequestError(f"the body is no JSON: {brief(fault['msg'])}", code="invalid_json")
    seen = brief(repr(fault["input"])[:80])
    known = kind.model_fields.get(place[0]) if place else None
    if known is not None and known.description is not None:
        return RequestError(
            f"{place[0]} is {seen}; give {known.description}",
            code="invalid_value",
            param=place[0],
        )
    return RequestError(
        f"{field or 'the body'} is {seen}, which it cannot be: {brief(fault['msg'])}",
        code="invalid_value",
        param=field or None,
    )

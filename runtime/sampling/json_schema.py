"""JSON schemas: read, checked, and written for llguidance."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, NoReturn

from ..errors import UsageError
from .ascii_classes import with_ascii_classes

__all__ = ["STRUCTURE", "characters_of_patterns", "lark_of_schema", "schema_text"]

STRUCTURE = '"{}[]:,0123456789'
"""Characters that nearly every document needs."""

_LARGEST = 1 << 20
"""Characters of a schema: it takes seconds to compile such a one."""

_FORM = {
    # As json.dumps writes: a model that likes spaces and line breaks cannot go on with them.
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    # Without \uXXXX: it would spell a second time what a character says, a key's name too.
    "json_allowed_escapes": 'nrbtf\\"',
}

_OF_FORMATS = "@.:-PT0"

_SCHEMAS_BY_NAME = ("properties", "patternProperties", "$defs", "definitions")
_CONSTANTS = ("const", "enum", "default", "examples")

_CONTROL = re.compile(r"(?<!\\)(?:\\\\)*\\u00(?:[01]|7f)")
"""Control characters in JSON text that have no short escape."""

_DRAFTS = ("draft-04", "draft-06", "draft-07", "2019-09", "2020-12")

_CLASSES = "dws"
"""To be ASCII's, as in ECMA, which JSON Schema prescribes. What is negated stays Unicode's: fewer
characters."""


def schema_text(schema: Mapping[str, Any] | bool | str | PathLike[str]) -> str:
    """A schema as JSON text, whatever it came as.

    Args:
        schema: A dictionary, JSON text, or the path of a file.

    Raises:
        UsageError: It is none of these, or too large.
    """
    if isinstance(schema, PathLike):
        schema = _read(Path(schema))
    if isinstance(schema, str):
        if len(schema) > _LARGEST:
            raise UsageError(
                f"json_schema has {len(schema):,} characters; it may have at most {_LARGEST:,}"
            )
        schema = _parsed(schema)
    if not isinstance(schema, Mapping | bool):
        raise UsageError(
            f"json_schema is {repr(schema)[:60]}; it must be a dictionary, JSON text, or a "
            "pathlib.Path of a file"
        )
    try:
        text = json.dumps(schema if isinstance(schema, bool) else dict(schema))
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"json_schema cannot be written as JSON: {error}") from error
    if len(text) > _LARGEST:
        raise UsageError(
            f"json_schema has {len(text):,} characters; it may have at most {_LARGEST:,}"
        )
    return text


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8-sig") as file:
            return file.read(_LARGEST + 1)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"json_schema is the file {path}, which cannot be read: {error}"
        ) from error


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"json_schema is {text[:60]!r}, which is no JSON: {error}; for a file, give a "
            "pathlib.Path"
        ) from error


def lark_of_schema(text: str) -> str:
    """A grammar for the documents that a schema accepts, in llguidance's form of Lark's syntax.

    A number is followed by a space or a line break, since nothing else would end it.

    Raises:
        UsageError: The schema says something that cannot be kept to.
    """
    schema = json.loads(text)
    if _CONTROL.search(text):
        _refuse("it holds a control character other than \\b, \\f, \\n, \\r and \\t")
    if isinstance(schema, dict):
        _check_top(schema)
        try:
            for inner in _all(schema):
                _check(inner)
                _rewrite_patterns(inner)
        except RecursionError as error:
            _refuse("it is nested too deeply", error)
        schema = {**schema, "x-guidance": _FORM}
    else:
        schema = {"x-guidance": _FORM} if schema else False
    return f"start: document /[ \\n]/?\ndocument: %json {json.dumps(schema)}\n"


def characters_of_patterns(text: str) -> str:
    """Characters that strings of a schema are likely to need: those that its patterns name."""
    patterns = [_OF_FORMATS]
    for schema in _all(json.loads(text)):
        patterns.append(str(schema.get("pattern", "")))
        if isinstance(named := schema.get("patternProperties"), dict):
            patterns += named
    return "".join(sorted(set("".join(patterns))))


def _refuse(reason: str, cause: BaseException | None = None) -> NoReturn:
    raise UsageError(f"json_schema cannot be kept to: {reason}") from cause


def _check_top(schema: dict[str, Any]) -> None:
    if "x-guidance" in schema:
        _refuse("x-guidance is ours to set; leave it out")
    draft = schema.get("$schema", _DRAFTS[-1])
    if not isinstance(draft, str) or not any(known in draft for known in _DRAFTS):
        _refuse(f"$schema is {repr(draft)[:80]}; it must be one of {', '.join(_DRAFTS)}")


def _check(schema: dict[str, Any]) -> None:
    """Refuse what llguidance would take and not keep to."""
    least = schema.get("minProperties", 0)
    required = schema.get("required", ())
    if isinstance(least, int) and least > max(1, len(set(map(str, required)))):
        _refuse(
            f"minProperties is {least}, and keys that the schema does not require could repeat; "
            "require them by name"
        )


def _rewrite_patterns(schema: dict[str, Any]) -> None:
    if isinstance(pattern := schema.get("pattern"), str):
        schema["pattern"] = with_ascii_classes(pattern, _CLASSES)
    if isinstance(named := schema.get("patternProperties"), dict):
        schema["patternProperties"] = {
            with_ascii_classes(key, _CLASSES): v for key, v in named.items()
        }


def _all(value: Any, is_named: bool = False) -> Iterator[dict[str, Any]]:
    """Every schema in a value, wherever a reference may point; no constants.

    Args:
        value: A part of a schema.
        is_named: Whether it holds schemas by names of their own.
    """
    if isinstance(value, list):
        for one in value:
            yield from _all(one)
    if not isinstance(value, dict):
        return
    if not is_named:
        yield value
    for key, inner in value.items():
        if is_named or key not in _CONSTANTS:
            yield from _all(inner, not is_named and key in _SCHEMAS_BY_NAME)

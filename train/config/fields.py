"""Configuration fields that carry their own constraints."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterable
from dataclasses import field
from typing import Any

from ...runtime.errors import ConfigError, brief
from ...runtime.scalars import plain

__all__ = [
    "LARGEST_SEED",
    "check_fields",
    "check_names",
    "check_types",
    "choice",
    "make_plain",
    "number",
    "parse_field",
    "suggestion",
    "whole",
]

_ARTICLE = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}

LARGEST_SEED = 2**64 - 1
"""The largest seed of PyTorch's generators."""


def whole(default: int, least: int = 0, most: int | None = None) -> Any:
    """Declare a whole number between ``least`` and ``most``, both included."""
    return field(default=default, metadata={"least": least, "most": most})


def number(
    default: float,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    why: str = "",
) -> Any:
    """Declare a number with inclusive (``least``, ``most``) or exclusive bounds.

    ``why`` is added to the error message of a value out of bounds: the reason, and what to try.
    """
    bounds = {"least": least, "above": above, "most": most, "below": below}
    return field(default=default, metadata={**bounds, "why": why})


def choice(default: str, options: Iterable[str]) -> Any:
    """Declare a choice between words."""
    return field(default=default, metadata={"options": tuple(options)})


def make_plain(config: Any) -> None:
    """Turn the values of a dataclass into Python's own, of the fields' types where none is lost.

    numpy's numbers, and whole numbers that are floats or the other way round, become the same
    numbers; :func:`check_types` lists what remains.
    """
    for entry in dataclasses.fields(config):
        value, kind = plain(getattr(config, entry.name)), type(entry.default)
        if kind is float and type(value) is int and _same_number(float, value):
            value = float(value)
        elif kind is int and type(value) is float and _same_number(int, value):
            value = int(value)
        object.__setattr__(config, entry.name, value)


def _same_number(kind: type[float], value: float) -> bool:
    try:
        return bool(kind(value) == value)
    except (OverflowError, ValueError):  # infinite, not a number, or too large for a float
        return False


def check_types(config: Any) -> list[str]:
    """List the fields of a dataclass that have another type than their default, a sentence each."""
    conflicts = []
    for entry in dataclasses.fields(config):
        value, kind = getattr(config, entry.name), type(entry.default)
        if kind in _ARTICLE and type(value) is not kind:
            options = entry.metadata.get("options")
            wanted = f"one of {', '.join(options)}" if options else _ARTICLE[kind]
            conflicts.append(f"{entry.name} is {_shown(value)}; it must be {wanted}")
    return conflicts


def check_fields(config: Any) -> list[str]:
    """List the fields of a dataclass that break their own constraint, one sentence each.

    They have their types: :func:`check_types` lists none.
    """
    conflicts = []
    for entry in dataclasses.fields(config):
        if not entry.metadata:
            continue
        value = getattr(config, entry.name)
        options = entry.metadata.get("options")
        if options is not None:
            if value not in options:
                conflicts.append(
                    f"{entry.name} is {_shown(value)}; it must be one of {', '.join(options)}"
                )
            continue
        # math.isfinite overflows for an int too large for a float.
        finite = isinstance(value, int) or math.isfinite(value)
        if not finite or not _within(value, entry.metadata):
            why = entry.metadata.get("why")
            conflicts.append(
                f"{entry.name} is {_shown(value)}; it must be {_bounds(entry.metadata)}"
                + (f", {why}" if why else "")
            )
    return conflicts


def _shown(value: object) -> str:
    try:
        return brief(repr(value))
    except ValueError:  # a number of thousands of digits
        return "a number of thousands of digits"


def _within(value: float, bounds: Any) -> bool:
    least, above = bounds.get("least"), bounds.get("above")
    most, below = bounds.get("most"), bounds.get("below")
    return (
        (least is None or value >= least)
        and (above is None or value > above)
        and (most is None or value <= most)
        and (below is None or value < below)
    )


def _bounds(bounds: Any) -> str:
    words = {"least": "at least", "above": "above", "most": "at most", "below": "below"}
    named = [f"{words[key]} {bounds[key]}" for key in words if bounds.get(key) is not None]
    return " and ".join(named)


def parse_field(cls: type, name: str, text: str) -> Any:
    """Parse the value of a field from the text that a user typed.

    Raises:
        ConfigError: The text is not a value of the field's type.
    """
    defaults: dict[str, Any] = {entry.name: entry.default for entry in dataclasses.fields(cls)}
    kind = type(defaults[name])
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ConfigError(f"{name} is {text!r}; it must be true or false")
        return text.lower() == "true"
    try:
        value = kind(text)
    except ValueError:
        value = math.nan
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{name} is {text!r}; it must be {_ARTICLE[kind]}")
    return value


def suggestion(unknown: Iterable[str], known: Iterable[str]) -> str:
    """What a misspelt name was probably meant to be, for an error message; may be empty."""
    names = list(known)
    close = [match for name in unknown for match in difflib.get_close_matches(name, names, 1)]
    return f" (did you mean {' or '.join(close)}?)" if close else ""


def check_names(cls: type, values: Iterable[str]) -> None:
    """Refuse names that are no fields of a dataclass.

    Raises:
        ConfigError: A name is unknown.
    """
    known = {entry.name for entry in dataclasses.fields(cls)}
    if unknown := sorted(set(values) - known):
        raise ConfigError(
            f"{', '.join(unknown)}: no such setting{suggestion(unknown, known)}; choose from "
            f"{', '.join(sorted(known))}"
        )

"""Fields of a configuration that carry their own constraint."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import field
from typing import Any

from ...runtime.errors import ConfigError

__all__ = ["check_fields", "choice", "number", "parse_field", "read_fields", "whole"]

_ARTICLE = {int: "a whole number", float: "a number", str: "a word", bool: "true or false"}


def whole(default: int, least: int = 0, most: int | None = None) -> Any:
    """A whole number from ``least`` to ``most``."""
    return field(default=default, metadata={"least": least, "most": most})


def number(
    default: float, *, least: float | None = None, above: float | None = None,
    most: float | None = None, below: float | None = None, why: str = "",
) -> Any:  # fmt: skip
    """A number within bounds: from ``least`` to ``most``, or between ``above`` and ``below``.

    ``why`` is added to the message of a value outside: the reason, and what to try.
    """
    bounds = {"least": least, "above": above, "most": most, "below": below}
    return field(default=default, metadata={**bounds, "why": why})


def choice(default: str, options: Iterable[str]) -> Any:
    """One of some words."""
    return field(default=default, metadata={"options": tuple(options)})


def check_fields(config: Any) -> list[str]:
    """Every field of a dataclass that breaks its own constraint, a sentence for each."""
    found = []
    for entry in dataclasses.fields(config):
        if not entry.metadata:
            continue
        value = getattr(config, entry.name)
        options = entry.metadata.get("options")
        if options is not None:
            if value not in options:
                found.append(f"{entry.name} is {value!r}; it must be one of {', '.join(options)}")
            continue
        # No finite check of whole numbers: there are some that no float holds.
        finite = isinstance(value, int) or math.isfinite(value)
        if not finite or not _within(value, entry.metadata):
            why = entry.metadata.get("why")
            found.append(
                f"{entry.name} is {value}; it must be {_bounds(entry.metadata)}"
                + (f", {why}" if why else "")
            )
    return found


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
    named = [f"{words[key]} {bounds[key]:g}" for key in words if bounds.get(key) is not None]
    return " and ".join(named)


def parse_field(cls: type, name: str, text: str) -> Any:
    """The value of a field from the text that a user typed.

    Raises:
        ConfigError: The text is no value of the field's type.
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


def read_fields(cls: type, values: dict[str, Any]) -> dict[str, Any]:
    """JSON values as arguments of a dataclass, names and types checked.

    Raises:
        ConfigError: A name is unknown, or a value has the wrong type.
    """
    fields = {entry.name: entry for entry in dataclasses.fields(cls)}
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise ConfigError(
            f"{', '.join(unknown)}: no such setting; there are {', '.join(sorted(fields))}"
        )
    checked: dict[str, Any] = {}
    for name, value in values.items():
        wanted = type(fields[name].default)
        if wanted is float and type(value) is int:
            value = float(value)
        if type(value) is not wanted:
            raise ConfigError(f"{name} is {value!r}; it must be {_ARTICLE[wanted]}")
        checked[name] = value
    return checked

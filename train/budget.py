"""The time and the size that a user allows."""

from __future__ import annotations

import dataclasses
import math
import re

from ..runtime.errors import UsageError

__all__ = ["Budget", "parse_size"]

_SECONDS = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1.0),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86400.0),
}
_BYTES = {
    "b": 1.0,
    "byte": 1.0,
    "bytes": 1.0,
    "kb": 1e3,
    "mb": 1e6,
    "gb": 1e9,
    "kib": 2.0**10,
    "mib": 2.0**20,
    "gib": 2.0**30,
}
_AMOUNT = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-z]+)\s*")


@dataclasses.dataclass(frozen=True)
class Budget:
    """Limits set by the user.

    Attributes:
        seconds: Time for everything from text to measured model; ``None`` for no limit.
        size: Size of the exported bundle in bytes; ``None`` for no limit.
    """

    seconds: float | None = None
    size: float | None = None

    @classmethod
    def parse(cls, text: str | None) -> Budget:
        """Parse ``30min``, ``1h30min``, ``2 hours``, ``5MB``, ``2MiB``, or a time and a size.

        Args:
            text: A time, a size, or both with a comma; ``None`` or nothing sets no limit.

        Raises:
            UsageError: The text is none of these.
        """
        limits: dict[str, float] = {}
        for part in (text or "").split(",") if (text or "").strip() else []:
            amounts = _amounts(part)
            kind = "seconds" if all(unit in _SECONDS for _, unit in amounts) else "size"
            units = _SECONDS if kind == "seconds" else _BYTES
            whole = kind == "seconds" or len(amounts) == 1
            if not amounts or not whole or any(unit not in units for _, unit in amounts):
                raise _invalid(text)
            total = sum(number * units[unit] for number, unit in amounts)
            if not 0 < total < math.inf or kind in limits:
                raise _invalid(text)
            limits[kind] = total
        return cls(**limits)


def parse_size(text: str) -> int:
    """Parse a size such as ``1MiB`` or ``500 kB``.

    Returns:
        The size in bytes.

    Raises:
        UsageError: The text is no size above 0.
    """
    amounts = _amounts(text)
    if len(amounts) == 1 and amounts[0][1] in _BYTES:
        size = amounts[0][0] * _BYTES[amounts[0][1]]
        if 1 <= size < math.inf:
            return int(size)
    raise UsageError(f"the size is {text!r}; give a number of bytes, such as 256KiB, 1MiB or 500kB")


def _amounts(text: str) -> list[tuple[float, str]]:
    """The numbers and units of ``1h 30min``, in lower case; nothing if there is anything else."""
    found, end = [], 0
    for match in _AMOUNT.finditer(text):
        # A lone M is as likely to mean megabytes as minutes.
        if match.start() != end or match[2] == "M":
            return []
        found.append((float(match[1]), match[2].lower()))
        end = match.end()
    return found if end == len(text) else []


def _invalid(text: str | None) -> UsageError:
    return UsageError(
        f"the budget is {text!r}; give a time or a size, such as 30min, 1h30min or 5MB, or both "
        "with a comma"
    )

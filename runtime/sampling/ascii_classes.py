r"""The classes ``\d``, ``\w`` and ``\s`` of regular expressions, in ASCII."""

from __future__ import annotations

import re

__all__ = ["with_ascii_classes"]

_ASCII = {
    "d": "[0-9]",
    "D": "[^0-9]",
    "w": "[0-9A-Za-z_]",
    "W": "[^0-9A-Za-z_]",
    "s": r"[\t-\r ]",
    "S": r"[^\t-\r ]",
}


def with_ascii_classes(pattern: str, classes: str = "dDwWsS") -> str:
    """A pattern whose classes are ASCII's; a class inside a class is their union.

    Args:
        pattern: The pattern, where Unicode's classes are the default.
        classes: The letters of the classes to write out.
    """

    def written(found: re.Match[str]) -> str:
        return _ASCII[found[1]] if found[1] in classes else found[0]

    return re.sub(r"\\(.)", written, pattern, flags=re.DOTALL)

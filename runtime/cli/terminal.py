"""What reaches a terminal: text from files and models is shown there, and never commands it."""

from __future__ import annotations

import re
import sys
from typing import TextIO

import click

__all__ = ["shown", "tell"]

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Control characters other than tab and newline: those of ASCII, and their 8-bit forms."""


def shown(text: str, stream: TextIO | None) -> str:
    r"""A text as it is written to a stream.

    A terminal obeys control characters: they move its cursor, rename its window, or answer in the
    user's place. There, all but tab and newline are written as ``\x1b``, like ``ls`` and ``less``
    do; a file or a pipe gets the text unchanged.

    Args:
        text: Any text.
        stream: Where it will be written; ``None`` if that is closed.
    """
    if stream is None or not stream.isatty():
        return text
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def tell(text: str, err: bool = False, nl: bool = True) -> None:
    """Print a line that may quote a file, a path or a model.

    Args:
        text: The line.
        err: Print it to stderr.
        nl: End it with a newline.
    """
    click.echo(shown(text, sys.stderr if err else sys.stdout), err=err, nl=nl)

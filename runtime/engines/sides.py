"""The sides of a state: sets of buffers that steps go round in.

A step reads one side and writes the next, so a step that fails leaves the side that it read as it
was. The third side keeps what the step before it read, even if this one is undone: with that, the
last token can be read again against a memory that has changed.
"""

from __future__ import annotations

__all__ = ["SIDES", "following", "preceding"]

SIDES = 3


def following(side: int) -> int:
    """The side that a step writes which reads this one."""
    return (side + 1) % SIDES


def preceding(side: int) -> int:
    """The side that the step read which wrote this one."""
    return (side - 1) % SIDES

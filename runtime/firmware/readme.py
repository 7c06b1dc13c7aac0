"""README.md of the folder: what it needs, and how it is built."""

from __future__ import annotations

from .packing import Packed
from .targets import TARGETS

__all__ = ["readme"]


def readme(packed: Packed, target: str) -> str:
    """The text."""
    return f"# {packed.bundle.path.name} on {TARGETS[target].title}\n"

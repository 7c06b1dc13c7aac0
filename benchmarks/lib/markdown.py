"""Paragraphs and tables of the pages that are made of figures."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

__all__ = ["NONE", "paragraph", "table"]

NONE = "–"  # noqa: RUF001
"""An empty cell."""


def paragraph(text: str) -> str:
    """A text in lines of at most 100 characters."""
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table; the head says how many columns it has."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)

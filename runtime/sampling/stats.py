"""Figures of a generation."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["GenerationStats"]


@dataclass(frozen=True)
class GenerationStats:
    """What a generation took.

    Attributes:
        tokens: Tokens generated.
        first_token_seconds: From the first request to the first token; ``None`` without one.
        seconds: Spent generating, without the time that the reader took.
        finish_reason: ``length``, ``stop``, ``choice``, ``grammar``, ``cancelled``, or ``None``
            before the end.
    """

    tokens: int
    first_token_seconds: float | None
    seconds: float
    finish_reason: str | None

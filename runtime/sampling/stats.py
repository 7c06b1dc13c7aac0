"""Statistics of a generation."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["GenerationStats"]


@dataclass(frozen=True)
class GenerationStats:
    """Statistics of a generation.

    Attributes:
        tokens: Number of tokens generated.
        first_token_seconds: Time from the first request to the first token; ``None`` before it.
        seconds: Time spent generating, excluding the time that the caller took between tokens.
        finish_reason: ``length``, ``stop``, ``choice``, ``grammar``, ``time``, ``cancelled``, or
            ``None`` before the end.
    """

    tokens: int
    first_token_seconds: float | None
    seconds: float
    finish_reason: str | None

"""Several drafts, of which the likeliest is kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from ..errors import UsageError
from ..scalars import plain
from .generation import GeneratedToken
from .text_stream import TokenStream

__all__ = ["MOST_DRAFTS", "best_seed", "mean_logprob"]

MOST_DRAFTS = 1_000
"""So many that one more gains nothing, and few enough for a slip to end in an error."""


def mean_logprob(tokens: Iterable[GeneratedToken]) -> float:
    """The mean log-probability of a text's tokens; minus infinity of none."""
    logprobs = [token.logprob for token in tokens]
    return sum(logprobs) / len(logprobs) if logprobs else -math.inf


def best_seed(
    draft: Callable[[int], TokenStream],
    drafts: int,
    first: int,
    watch: Callable[[Callable[[], None]], object] | None = None,
) -> int:
    """The seed whose text has the likeliest tokens, by the mean of their log-probabilities.

    Args:
        draft: Begins a draft with a seed.
        drafts: How many seeds to try.
        first: The first of them.
        watch: Called before each draft with what cancels it; no other follows then.

    Raises:
        UsageError: ``drafts`` can never work.
    """
    drafts = plain(drafts)
    if type(drafts) is not int or not 1 <= drafts <= MOST_DRAFTS:
        raise UsageError(
            f"best_of is {drafts!r}; it must be a whole number from 1 to {MOST_DRAFTS}"
        )
    best, highest = first, -math.inf
    for seed in range(first, first + drafts):
        tokens = draft(seed)
        if watch is not None:
            watch(tokens.cancel)
        mean = mean_logprob(tokens)
        if mean > highest:
            best, highest = seed, mean
        if tokens.finish_reason == "cancelled":
            break
    return best

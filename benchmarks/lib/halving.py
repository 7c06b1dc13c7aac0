"""Successive halving (Jamieson and Talwalkar, 2016): many short runs, of which the best go on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

__all__ = ["halve", "ranked", "search_steps"]

C = TypeVar("C")


def ranked(loss: float) -> float:
    """What losses are compared by: a run that has diverged comes last."""
    return math.inf if math.isnan(loss) else loss


def search_steps(steps: int, ours: int, batch: int) -> int:
    """Steps of a network whose batch is not ours, for as many of ours.

    A smaller batch takes more of them, but reads fewer tokens in all.
    """
    return round(steps * math.sqrt(ours / batch))


def halve(
    candidates: Sequence[C], rungs: Sequence[int], measure: Callable[[C, int], float]
) -> tuple[C, list[list[tuple[C, float]]]]:
    """Choose a candidate.

    Args:
        candidates: What to choose from.
        rungs: Steps in all after each rung. Half of the candidates, rounded up, go on from each
            but the last, and the best after the last is chosen.
        measure: Trains a candidate on to a number of steps; returns its validation loss.

    Returns:
        The choice, and the losses of each rung, best first.
    """
    left, tried = list(candidates), []
    for steps in rungs:
        losses = [(candidate, measure(candidate, steps)) for candidate in left]
        losses.sort(key=lambda pair: ranked(pair[1]))
        tried.append(losses)
        left = [candidate for candidate, _ in losses[: max(1, (len(losses) + 1) // 2)]]
    return tried[-1][0][0], tried

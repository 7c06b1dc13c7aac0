"""The front of what costs least and loses least."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

__all__ = ["Point", "dominators", "front"]


class Point(NamedTuple):
    """What something costs and what it loses; less of both is better."""

    cost: float
    loss: float


def dominators(point: Point, others: Mapping[str, Point]) -> list[str]:
    """The names of those that are no worse in either and better in one, best loss first."""
    found = [
        name
        for name, other in others.items()
        if other.cost <= point.cost and other.loss <= point.loss and other != point
    ]
    return sorted(found, key=lambda name: others[name].loss)


def front(points: Mapping[str, Point]) -> list[str]:
    """The names of those that nothing dominates, cheapest first."""
    names: Iterable[str] = (name for name in points if not dominators(points[name], points))
    return sorted(names, key=lambda name: points[name].cost)

"""Limits that keep logarithms and exponentials finite."""

from __future__ import annotations

__all__ = ["FLOOR", "SUREST"]

FLOOR = 1e-20
"""Minimum probability before the logarithm, so that no logit is infinite. It is applied as a
maximum, since the exporter's optimizer drops a summand this small."""

SUREST = 30.0
"""Bound on a score, which keeps its exponential finite."""

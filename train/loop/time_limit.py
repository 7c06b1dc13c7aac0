"""Keep a run within a time: measure its steps, and correct how many there will be."""

from __future__ import annotations

import time
from collections import deque

__all__ = ["TimeLimit"]

_TOLERANCE = 0.02
"""Share of the planned steps below which a correction is not worth one."""

_PAST = 0.25
"""The pace is measured over this share of the time that is left, and over a few steps at least."""

_MIN_PAST = 8
"""Steps that the pace is measured over at least."""


class TimeLimit:
    """The time that is left for training, and the steps that fit in it.

    Steps are expected to take as long as those of the last while did: a long while when much time
    is left, so that another program's moment does not count for more than it takes; the last few
    steps near the end. A validation is expected to take as long as the last one. Measuring the
    held-out text is expected to take longer by the same factor as the steps, within its share of
    the time, after which it stops.

    Args:
        ends: When everything must be done, in the seconds of :func:`time.monotonic`.
        most: Steps that are never exceeded, however much time is left.
        step: Seconds that a step is expected to take.
        validation: Seconds that a validation is expected to take, with its checkpoint.
        held_out: Seconds that measuring the held-out text is expected to take.
        longest: Seconds that measuring the held-out text may take.
        rest: Seconds kept for what follows it.

    Attributes:
        corrections: After which step how many steps were planned in all, in order.
    """

    def __init__(
        self,
        ends: float,
        most: int,
        step: float,
        validation: float,
        held_out: float,
        longest: float,
        rest: float = 0.0,
    ) -> None:
        self._ends, self.most, self._rest = ends, most, rest
        self._held_out, self._longest = held_out, max(held_out, longest)
        self.corrections: list[tuple[int, int]] = []
        self._expected, self._validation = step, validation
        self._steps: deque[float] = deque()
        self._total = 0.0
        self._warm = False

    @property
    def step(self) -> float:
        """Seconds of a step: the mean of the last ones."""
        return self._total / len(self._steps) if self._steps else self._expected

    @property
    def measured_by(self) -> float:
        """When measuring the held-out text must end."""
        return self._ends - self._rest

    def resume(self, seconds: float, most: int, corrections: list[tuple[int, int]]) -> None:
        """Continue a run.

        Args:
            seconds: Seconds that it has taken.
            most: Steps that it was never to exceed.
            corrections: The corrections so far, each as the steps done and planned.
        """
        self._ends -= seconds
        self.most, self.corrections = most or self.most, list(corrections)

    def took(self, seconds: float) -> None:
        """Note the time of a step; the first one of a process is slower, and does not count."""
        if self._warm:
            self._steps.append(seconds)
            self._total += seconds
        self._warm = True
        past = _PAST * (self.measured_by - time.monotonic())
        while len(self._steps) > _MIN_PAST and self._total - self._steps[0] > past:
            self._total -= self._steps.popleft()

    def validated(self, seconds: float) -> None:
        """Note the time of a validation."""
        self._validation = seconds

    def plan(self, done: int, planned: int, validate_every: int) -> int:
        """Correct the number of steps, if the pace calls for it.

        Args:
            done: Steps done.
            planned: Steps planned in all.
            validate_every: Steps between validations; the last step has one too.

        Returns:
            Steps to do in all, at least one and at least those that are done.
        """
        held_out = min(self._longest, self._held_out * max(1.0, self.step / self._expected))
        left = self.measured_by - time.monotonic() - held_out - self._validation
        more = int(left / (self.step + self._validation / validate_every))
        total = max(1, done, min(self.most, done + more))
        if abs(total - planned) <= max(1, _TOLERANCE * planned) and min(planned, total) > done:
            return planned
        if total != planned:
            self.corrections.append((done, total))
        return total

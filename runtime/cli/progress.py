"""The progress bar of every command."""

from __future__ import annotations

import shutil
import sys
import time

__all__ = ["ProgressBar"]

_WIDTH = 20
"""Characters of the bar itself."""

_INTERVAL = 0.1
"""Seconds between two drawings, so that a fast loop does not spend its time here."""

_LINE_INTERVAL = 60.0
"""Seconds between two lines where there is no terminal: a sign of life in a log."""


class ProgressBar:
    """One line on stderr that shows how far a task is.

    If stderr is not a terminal, a line is printed once a minute, and none by a shorter task.

    Use it as a context manager, or call :meth:`close`::

        with ProgressBar("score", len(tokens)) as bar:
            bar.update(512)

    Args:
        label: Name of the task.
        total: Amount of work, in any unit; ``None`` if unknown, which shows no bar.

    Attributes:
        done: Work done so far.
    """

    def __init__(self, label: str, total: int | None = None) -> None:
        self.done = 0
        self._label, self._total, self._note = label, total, ""
        self._terminal = self._visible = sys.stderr is not None and sys.stderr.isatty()
        self._start = self._said = time.monotonic()
        self._drawn = float("-inf")

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def update(self, count: int = 1, note: str | None = None) -> None:
        """Report more work.

        Args:
            count: Work done since the last call.
            note: A remark to show behind the bar; by default, the last one stays.
        """
        self.show(self.done + count, note=note)

    def show(
        self,
        done: int,
        total: int | None = None,
        note: str | None = None,
        seconds_left: float | None = None,
    ) -> None:
        """Report the work done in all.

        Args:
            done: Work done so far.
            total: Amount of work, if it has changed.
            note: A remark to show behind the bar; by default, the last one stays.
            seconds_left: The caller's estimate; by default, that of the bar itself.
        """
        changed = total not in (None, self._total) or note not in (None, self._note)
        self.done = done
        self._total = self._total if total is None else total
        self._note = self._note if note is None else note
        now = time.monotonic()
        if seconds_left is None and self._total and done:
            seconds_left = (now - self._start) / done * (self._total - done)
        if not self._terminal and sys.stderr is not None and now - self._said >= _LINE_INTERVAL:
            self._said = now
            sys.stderr.write(self._line(round(seconds_left or 0)) + "\n")
            sys.stderr.flush()
        if self._visible and (changed or done == self._total or now - self._drawn > _INTERVAL):
            self._drawn = now
            self._write(self._line(round(seconds_left or 0)))

    def phase(self, name: str, done: int, total: int) -> None:
        """Report the work done in one phase of the task, of which each starts from zero."""
        self.show(done, total, name)

    def clear(self) -> None:
        """Erase the line, so that something else can be printed."""
        self._said = time.monotonic()  # which is a sign of life, too
        if self._visible and self._drawn > float("-inf"):
            self._write("")
            sys.stderr.write("\r")
            self._drawn = float("-inf")

    def close(self) -> None:
        """Erase the line for good."""
        self.clear()
        self._visible = False

    def _line(self, left: int) -> str:
        parts = [self._label]
        if self._total:
            share = min(1.0, self.done / self._total)
            filled = round(share * _WIDTH)
            parts.append(f"[{'#' * filled}{'-' * (_WIDTH - filled)}] {share:4.0%}")
            if 0 < self.done < self._total:
                parts.append(f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02} left")
        return "  ".join([*parts, self._note]).rstrip()

    def _write(self, line: str) -> None:
        width = shutil.get_terminal_size().columns - 1
        sys.stderr.write("\r" + line[:width].ljust(width))
        sys.stderr.flush()

"""Progress on stderr, if that is a terminal."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Callable, Iterator

import click

__all__ = ["progress_bar", "progress_phases"]


@contextlib.contextmanager
def progress_bar(label: str, length: int | None) -> Iterator[Callable[[int], None]]:
    """Show a progress bar, unless the length is unknown.

    Args:
        label: What is being done.
        length: The amount of work.

    Yields:
        A function to call with the amount done since the last call.
    """
    if length is None or not sys.stderr.isatty():
        yield lambda _: None
        return
    with click.progressbar(length=length, label=label, file=sys.stderr) as bar:

        def update(count: int) -> None:
            bar.update(count)

        yield update


@contextlib.contextmanager
def progress_phases(label: str) -> Iterator[Callable[[str, int, int], None]]:
    """Show the current one of many phases on a single line.

    Args:
        label: What is being done.

    Yields:
        A function to call with a phase's name, its steps done, and its steps in all.
    """
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    width = shutil.get_terminal_size().columns - 1

    def update(phase: str, done: int, total: int) -> None:
        line = f"{label}: {phase} {done}/{total}"
        sys.stderr.write("\r" + line[:width].ljust(width))
        sys.stderr.flush()

    try:
        yield update
    finally:
        sys.stderr.write("\r" + " " * width + "\r")
        sys.stderr.flush()

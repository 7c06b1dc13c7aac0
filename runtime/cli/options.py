"""Options and progress bars that several commands share."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import click

from ..engines.base import PROVIDER_CHOICES
from ..errors import UsageError

__all__ = ["engine_options", "parse_choices", "progress_bar", "progress_phases"]

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C", bound=str)


def engine_options(command: F) -> F:
    """Add the options that choose the provider and the number of threads."""
    for option in (
        click.option(
            "--provider",
            type=click.Choice(PROVIDER_CHOICES),
            default="auto",
            show_default=True,
            help="Execution provider that runs the model.",
        ),
        click.option(
            "--allow-fallback",
            is_flag=True,
            help="Use the CPU if the provider cannot run.",
        ),
        click.option(
            "--threads",
            type=click.IntRange(1),
            default=1,
            show_default=True,
            help="Threads that one step may use.",
        ),
    ):
        command = option(command)
    return command


def parse_choices(option: str, text: str, choices: Sequence[C], more: str = "") -> list[C]:
    """Parse a comma-separated list of names.

    Args:
        option: The option's name, such as ``--provider``.
        text: The option's value.
        choices: The valid names.
        more: Another valid name, handled by the caller, to list in the error message.

    Raises:
        UsageError: A name is not among ``choices``.
    """
    known: dict[str, C] = {choice: choice for choice in choices}
    names = [name.strip() for name in text.split(",")]
    if unknown := [name for name in names if name not in known]:
        raise UsageError(
            f"{option} has {', '.join(map(repr, unknown))}; choose from "
            f"{', '.join(filter(None, (*choices, more)))}"
        )
    return [known[name] for name in names]


@contextlib.contextmanager
def progress_bar(label: str, length: int | None) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on stderr if it is a terminal and the length is known.

    Args:
        label: What is being done.
        length: Total amount of work; ``None`` if unknown.

    Yields:
        A function to call with the amount of work done since the last call.
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
    """Show the current phase of a long task in one line on stderr, if it is a terminal.

    Args:
        label: What is being done.

    Yields:
        A function to call with a phase's name, the amount done, and the total.
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

"""Options that several commands have in common."""

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
    """Which provider runs the model, and on how many threads."""
    for option in (
        click.option(
            "--provider",
            type=click.Choice(PROVIDER_CHOICES),
            default="auto",
            show_default=True,
            help="The execution provider.",
        ),
        click.option(
            "--allow-fallback", is_flag=True, help="Run on the CPU where the provider cannot."
        ),
        click.option("--threads", type=click.IntRange(1), default=1, show_default=True),
    ):
        command = option(command)
    return command


def parse_choices(option: str, text: str, choices: Sequence[C], more: str = "") -> list[C]:
    """Read names with commas between them.

    Args:
        option: The option's name, such as ``--provider``.
        text: Its value.
        choices: The names that it may hold.
        more: A name that is handled elsewhere, for the message.

    Raises:
        UsageError: A name is not among them.
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
    """A progress bar on stderr, where that is a terminal and the length is known.

    Args:
        label: What is going on.
        length: How much there is to do.

    Yields:
        What to call with how much more is done.
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
    """One line on stderr that says which of many phases is under way, where that is a terminal.

    Args:
        label: What is going on.

    Yields:
        What to call with a phase's name, how much of it is done, and how much there is.
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

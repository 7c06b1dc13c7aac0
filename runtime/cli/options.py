"""Options that several commands share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from ..engines.base import EXPERIMENTAL, PROVIDER_CHOICES
from ..errors import UsageError

__all__ = ["Seconds", "engine_options", "parse_choices", "parse_numbers"]

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C", bound=str)


class Seconds(click.FloatRange):
    """A number of seconds: click's own range lets ``nan`` through, and ``inf``."""

    name = "seconds"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read the option's value."""
        seconds = float(super().convert(value, param, ctx))
        if not math.isfinite(seconds):
            raise click.BadParameter(
                f"{seconds} is no number of seconds; give one such as 600", ctx, param
            )
        return seconds


def engine_options(command: F) -> F:
    """Add the options that choose the provider and the number of threads."""
    for option in (
        click.option(
            "--provider",
            type=click.Choice(PROVIDER_CHOICES),
            default="auto",
            show_default=True,
            help=f"What runs the model; {' and '.join(EXPERIMENTAL)} are experimental.",
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


def parse_numbers(option: str, text: str) -> list[int]:
    """Parse a comma-separated list of whole numbers from 1.

    Args:
        option: The option's name, such as ``--threads``.
        text: The option's value.

    Raises:
        UsageError: A number is missing, or below 1.
    """
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if not part.isdecimal() or int(part) < 1:
            raise UsageError(
                f"{option} has {part!r}; give whole numbers from 1, separated by commas, such as "
                "1,8"
            )
    return [int(part) for part in parts]

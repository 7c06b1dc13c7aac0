"""Options that say how to sample, one for each field of SamplingParams."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

__all__ = ["sampling_options"]

F = TypeVar("F", bound=Callable[..., Any])

_ABOVE_ZERO = click.FloatRange(0, min_open=True)
_PROBABILITY = click.FloatRange(0, 1, min_open=True)

_OPTIONS = [
    click.option(
        "--max-new-tokens",
        type=click.IntRange(0),
        metavar="N",
        help="Tokens to generate. Default: the bundle's, or 200; with --load-state the rest.",
    ),
    click.option(
        "--temperature",
        type=click.FloatRange(0),
        metavar="T",
        help="Divide the logits by T; 0 takes the likeliest token. Default: the bundle's.",
    ),
    click.option(
        "--top-k",
        type=click.IntRange(0),
        metavar="K",
        help="Keep the K likeliest tokens; 0 keeps all.",
    ),
    click.option(
        "--top-p",
        type=_PROBABILITY,
        metavar="P",
        help="Keep the smallest set of likeliest tokens that reaches this probability.",
    ),
    click.option(
        "--min-p",
        type=click.FloatRange(0, 1),
        metavar="P",
        help="Keep tokens at least this fraction as likely as the likeliest.",
    ),
    click.option(
        "--typical-p",
        type=_PROBABILITY,
        metavar="P",
        help="Keep the tokens of most typical surprise that reach this probability.",
    ),
    click.option(
        "--repetition-penalty",
        type=_ABOVE_ZERO,
        metavar="X",
        help="Above 1, make tokens that were read or written less likely.",
    ),
    click.option(
        "--frequency-penalty",
        type=float,
        metavar="X",
        help="Subtract X from a token's logit for each time that it was written.",
    ),
    click.option(
        "--presence-penalty",
        type=float,
        metavar="X",
        help="Subtract X from a token's logit once it was written.",
    ),
    click.option(
        "--bad-word",
        "bad_words",
        multiple=True,
        metavar="TEXT",
        help="Never write this text. Repeatable.",
    ),
    click.option(
        "--choice",
        "choices",
        multiple=True,
        metavar="TEXT",
        help="Write exactly one of these texts. Repeatable.",
    ),
    click.option(
        "--regex", metavar="PATTERN", help="Write only what this regular expression matches."
    ),
    click.option(
        "--grammar",
        "grammar_file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Write only what the grammar in FILE allows (Lark syntax).",
    ),
    click.option("--stop", multiple=True, metavar="TEXT", help="End before this text. Repeatable."),
    click.option(
        "--seed", type=click.IntRange(0), metavar="S", help="The same seed gives the same text."
    ),
]


def sampling_options(command: F) -> F:
    """Add the sampling options to a command, in the order of its help."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command

"""Options that say how to sample, one for each field of SamplingParams."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from ..sampling.token_tail import REACH
from .text_files import read_pieces

__all__ = ["sampling_changes", "sampling_options"]

F = TypeVar("F", bound=Callable[..., Any])

_ABOVE_ZERO = click.FloatRange(0, min_open=True)
_PROBABILITY = click.FloatRange(0, 1, min_open=True)
_CUTOFF = click.FloatRange(0, 1, max_open=True)
_WINDOW = click.IntRange(0, REACH)

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
        "--epsilon-cutoff",
        type=_CUTOFF,
        metavar="P",
        help="Leave out tokens less likely than this.",
    ),
    click.option(
        "--eta-cutoff",
        type=_CUTOFF,
        metavar="P",
        help="The same, and less where many tokens are likely.",
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
        "--penalty-window",
        type=_WINDOW,
        metavar="N",
        help="Let the penalties count the last N tokens and no others.",
    ),
    click.option(
        "--no-repeat-ngram-size",
        type=_WINDOW,
        metavar="N",
        help="Never write N tokens in a row twice.",
    ),
    click.option(
        "--logit-bias",
        "text_bias",
        type=(str, float),
        multiple=True,
        metavar="TEXT X",
        help="Add X to the logit of this text's last token, where the others stand before it; "
        "-inf forbids the text. Repeatable.",
    ),
    click.option(
        "--token-bias",
        type=(click.IntRange(0), float),
        multiple=True,
        metavar="ID X",
        help="The same for the token with this number. Repeatable.",
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
        help="Write only what the grammar in FILE allows (Lark's syntax, or llama.cpp's GBNF).",
    ),
    click.option(
        "--json-schema",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Write one JSON document that the schema in FILE accepts.",
    ),
    click.option(
        "--unicode-classes/--ascii-classes",
        default=None,
        help="What \\d, \\w and \\s of a pattern mean. Default: ASCII in a model of bytes.",
    ),
    click.option("--stop", multiple=True, metavar="TEXT", help="End before this text. Repeatable."),
    click.option(
        "--stop-token-id",
        "stop_token_ids",
        type=click.IntRange(0),
        multiple=True,
        metavar="ID",
        help="End before the token with this number. Repeatable.",
    ),
    click.option(
        "--include-stop/--exclude-stop",
        default=None,
        help="Write what ended the text, too. Default: the bundle's, or not.",
    ),
    click.option(
        "--min-new-tokens",
        type=click.IntRange(0),
        metavar="N",
        help="Let nothing stop the text before N tokens.",
    ),
    click.option(
        "--max-time",
        type=_ABOVE_ZERO,
        metavar="S",
        help="End after S seconds, with a whole token.",
    ),
    click.option(
        "--seed", type=click.IntRange(0), metavar="S", help="The same seed gives the same text."
    ),
]


def sampling_changes(given: dict[str, Any]) -> dict[str, Any]:
    """What the options that were given change, by the names of :class:`SamplingParams`.

    Args:
        given: Their values; ``None`` or empty for those that were not given.
    """
    changes = {name: value for name, value in given.items() if value is not None and value != ()}
    biases = dict(changes.pop("token_bias", ())), dict(changes.pop("text_bias", ()))
    if any(biases):
        changes["logit_bias"] = {**biases[0], **biases[1]}
    if (file := changes.pop("grammar_file", None)) is not None:
        changes["grammar"] = "".join(read_pieces(file))
    return changes


def sampling_options(command: F) -> F:
    """Add the sampling options to a command, in the order of its help."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command

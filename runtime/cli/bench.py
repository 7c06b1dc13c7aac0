"""``rillet bench``: how fast a bundle runs on this machine."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import click

from ..bench import COLUMNS, measure_bundle
from ..engines.base import PROVIDER_CHOICES, PROVIDERS
from ..errors import EngineError
from .options import parse_choices, parse_numbers
from .progress import ProgressBar
from .terminal import tell

__all__ = ["bench_command"]


@click.command("bench")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--provider",
    default="auto",
    show_default=True,
    metavar="NAMES",
    help=f"Providers, separated by commas: {', '.join(PROVIDERS)}.",
)
@click.option(
    "--threads",
    default="1",
    show_default=True,
    metavar="NUMBERS",
    help="Numbers of threads, separated by commas.",
)
@click.option(
    "--prompt",
    type=click.IntRange(2),
    default=512,
    show_default=True,
    metavar="N",
    help="Tokens of the prompt.",
)
@click.option(
    "--tokens",
    type=click.IntRange(1),
    default=256,
    show_default=True,
    metavar="N",
    help="Tokens to decode.",
)
@click.option(
    "--streams",
    type=click.IntRange(1),
    default=16,
    show_default=True,
    metavar="N",
    help="Streams in the batch.",
)
@click.option(
    "--repetitions",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    metavar="N",
    help="Repetitions of each measurement, after one warm-up.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["markdown", "csv", "json"]),
    default="markdown",
    show_default=True,
    help="How to print the table.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
def bench_command(
    bundle: Path,
    provider: str,
    threads: str,
    prompt: int,
    tokens: int,
    streams: int,
    repetitions: int,
    form: str,
    as_json: bool,
) -> None:
    """Measure how fast BUNDLE runs: loading, reading, writing, and many streams together."""
    names = parse_choices("--provider", provider, PROVIDER_CHOICES)
    numbers = parse_numbers("--threads", threads)
    rows = []
    with ProgressBar("bench", len(names) * len(numbers) * 4 * (repetitions + 1)) as bar:
        for name in names:
            for number in numbers:
                try:
                    row = measure_bundle(
                        bundle,
                        name,
                        number,
                        prompt=prompt,
                        tokens=tokens,
                        streams=streams,
                        repetitions=repetitions,
                        progress=bar.update,
                    )
                except EngineError as error:
                    if len(names) == 1:
                        raise
                    bar.clear()
                    tell(f"Note: {error}", err=True)
                else:
                    rows.append(row)
    if not rows:
        raise EngineError(f"none of {provider} runs {bundle}; rillet doctor {bundle} says why")
    _print_table(rows, "json" if as_json else form)


def _print_table(rows: list[dict[str, Any]], form: str) -> None:
    if form == "json":
        tell(json.dumps(rows, indent=2))
    elif form == "csv":
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerows([list(rows[0]), *(map(_format, row.values()) for row in rows)])
        tell(table.getvalue(), nl=False)
    else:
        for cells in (
            list(COLUMNS.values()),
            ["---"] * len(COLUMNS),
            *([_format(row[name]) for name in COLUMNS] for row in rows),
        ):
            tell(f"| {' | '.join(cells)} |")


def _format(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.1f}"

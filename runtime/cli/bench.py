"""``rillet bench``: how fast a bundle runs on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ..bench import COLUMNS, bench
from ..engines.base import PROVIDER_CHOICES, PROVIDERS
from ..errors import EngineError, UsageError
from .options import parse_choices
from .progress import ProgressBar

__all__ = ["bench_command"]


@click.command("bench")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--provider", default="auto", show_default=True, metavar="NAMES",
              help=f"Providers, with commas between: {', '.join(PROVIDERS)}.")  # fmt: skip
@click.option("--threads", default="1", show_default=True, metavar="NUMBERS",
              help="Numbers of threads, with commas between.")  # fmt: skip
@click.option("--prompt", type=click.IntRange(2), default=512, show_default=True, metavar="N",
              help="Tokens of the prompt.")  # fmt: skip
@click.option("--tokens", type=click.IntRange(1), default=256, show_default=True, metavar="N",
              help="Tokens to decode.")  # fmt: skip
@click.option("--streams", type=click.IntRange(1), default=16, show_default=True, metavar="N",
              help="Streams in the batch.")  # fmt: skip
@click.option("--repetitions", type=click.IntRange(1), default=5, show_default=True, metavar="N",
              help="How often each is measured, after one that is not counted.")  # fmt: skip
@click.option("--format", "form", type=click.Choice(["markdown", "csv", "json"]),
              default="markdown", show_default=True, help="How to write the table.")  # fmt: skip
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
    """Measure how fast BUNDLE runs: loading, reading, writing, many streams at once."""
    names = parse_choices("--provider", provider, PROVIDER_CHOICES)
    numbers = [_number(value) for value in threads.split(",")]
    rows = []
    with ProgressBar("bench", len(names) * len(numbers) * 4 * (repetitions + 1)) as bar:
        for name in names:
            for number in numbers:
                try:
                    rows.append(bench(bundle, name, number, prompt=prompt, tokens=tokens,
                                      streams=streams, repetitions=repetitions,
                                      progress=bar.update))  # fmt: skip
                except EngineError as error:
                    if len(names) == 1:
                        raise
                    bar.clear()
                    click.echo(f"Note: {error}", err=True)
    if as_json or form == "json":
        click.echo(json.dumps(rows, indent=2))
    elif form == "csv":
        click.echo(",".join(rows[0]) if rows else "")
        for row in rows:
            click.echo(",".join(_shown(value) for value in row.values()))
    else:
        click.echo("| " + " | ".join(COLUMNS.values()) + " |")
        click.echo("| " + " | ".join("---" for _ in COLUMNS) + " |")
        for row in rows:
            click.echo("| " + " | ".join(_shown(row[name]) for name in COLUMNS) + " |")


def _number(value: str) -> int:
    if not value.strip().isdecimal() or int(value) < 1:
        raise UsageError(f"--threads has {value!r}; it must be whole numbers from 1, such as 1,2")
    return int(value)


def _shown(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.1f}"

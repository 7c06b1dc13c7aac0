"""``rillet score``: measure how well a model predicts a text."""

from __future__ import annotations

import json
import math
from pathlib import Path

import click

from ..engines.base import ProviderChoice
from ..model import load
from .options import engine_options
from .progress import ProgressBar
from .text_files import read_pieces

__all__ = ["score_command"]


@click.command("score")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option(
    "--memory/--no-memory",
    default=True,
    show_default=True,
    help="Let the memory learn from FILE as it is read.",
)
@click.option(
    "--learn-from",
    type=click.Path(path_type=Path, allow_dash=True),
    metavar="TEXT",
    help="Teach the memory this file first, to measure what that is worth.",
)
@click.option("--json", "as_json", is_flag=True, help="Write the results as JSON.")
@engine_options
def score_command(
    bundle: Path,
    file: Path,
    memory: bool,
    learn_from: Path | None,
    as_json: bool,
    provider: ProviderChoice,
    threads: int,
    allow_fallback: bool,
) -> None:
    """Measure how well the model in BUNDLE predicts FILE (- is standard input)."""
    model = load(bundle, provider, threads, allow_fallback=allow_fallback)
    any_bytes = model.tokenizer.reads_any_bytes
    session = model.session(memory=memory)
    if learn_from is not None:
        session.learn(read_pieces(learn_from, any_bytes=any_bytes))
    size = file.stat().st_size if file.is_file() else None
    with ProgressBar("score", size) as bar:
        result = session.score(read_pieces(file, bar.update, any_bytes=any_bytes))
    if as_json:
        click.echo(
            json.dumps({**result.to_dict(), "memory": memory, "provider": model.info.provider})
        )
        return
    without = charged = ""
    if result.unknown_characters:
        share = f"{result.unknown_characters / result.characters:.2%}"
        each = result.unknown_nats / result.unknown_characters / math.log(2)
        without = f"   without {share} of the characters, which are unknown"
        charged = f"   with {share} unknown characters at {each:.1f} bits each"
    rows = [
        ("tokens scored", f"{result.tokens:,}", without),
        ("loss, nats per token", f"{result.nats_per_token:.4f}", without),
        ("perplexity", f"{result.perplexity:.3f}", without),
        ("bits per character", f"{result.bits_per_char:.4f}", charged),
        ("bits per byte", f"{result.bits_per_byte:.4f}", charged),
    ]
    for name, value, note in rows:
        click.echo(f"{name:<22}{value:>14}{note}")

"""``rillet score``: measure how well a model predicts a text."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ..engines.base import ProviderChoice
from ..model import load
from .options import engine_options
from .progress import ProgressBar
from .terminal import tell
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
    """Measure how well the model in BUNDLE predicts FILE (UTF-8 text; - is standard input)."""
    model = load(bundle, provider, threads, allow_fallback=allow_fallback)
    session = model.session(memory=memory)
    if learn_from is not None:
        session.learn(read_pieces(learn_from))
    size = file.stat().st_size if file.is_file() else None
    with ProgressBar("score", size) as bar:
        result = session.score(read_pieces(file, bar.update))
    if as_json:
        tell(json.dumps({**result.to_dict(), "memory": memory, "provider": model.info.provider}))
        return
    rows = [
        ("tokens scored", f"{result.tokens:,}"),
        ("loss, nats per token", f"{result.nats_per_token:.4f}"),
        ("perplexity", f"{result.perplexity:.3f}"),
        ("bits per character", f"{result.bits_per_char:.4f}"),
        ("bits per byte", f"{result.bits_per_byte:.4f}"),
    ]
    for name, value in rows:
        tell(f"{name:<22}{value:>14}")

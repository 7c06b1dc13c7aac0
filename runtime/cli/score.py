"""``rillet score``: measure how well a model predicts a text."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path

import click

from ..engines.base import ProviderChoice
from ..errors import UsageError
from ..model import Model, load
from .options import engine_options
from .progress import ProgressBar
from .terminal import tell
from .text_files import read_pieces

__all__ = ["score_command"]


@click.command("score")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("file", required=False, type=click.Path(path_type=Path, allow_dash=True))
@click.option(
    "--memory/--no-memory",
    default=True,
    show_default=True,
    help="Let the memory learn from FILE as it is read.",
)
@click.option(
    "--taught/--untaught",
    default=True,
    show_default=True,
    help="Begin with what BUNDLE was taught, if anything, or at zeros.",
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
    file: Path | None,
    memory: bool,
    taught: bool,
    learn_from: Path | None,
    as_json: bool,
    provider: ProviderChoice,
    threads: int,
    allow_fallback: bool,
) -> None:
    """Measure how well the model in BUNDLE predicts FILE (- is standard input).

    Without FILE, measure on the sample of its run's held-out text that BUNDLE carries.
    """
    model = load(bundle, provider, threads, allow_fallback=allow_fallback)
    any_bytes = model.tokenizer.reads_any_bytes
    session = model.session(memory=memory, taught=taught)
    if learn_from is not None:
        session.learn(read_pieces(learn_from, any_bytes=any_bytes))
    size = file.stat().st_size if file is not None and file.is_file() else None
    with ProgressBar("score", size) as bar:
        result = session.score(_pieces(model, file, bar.update))
    if as_json:
        how = {"memory": memory, "taught": session.taught, "provider": model.info.provider}
        tell(json.dumps({**result.to_dict(), **how}))
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
        tell(f"{name:<22}{value:>14}{note}")


def _pieces(model: Model, file: Path | None, progress: Callable[[int], object]) -> Iterable[str]:
    """The text to score: of the file, or the sample in the bundle."""
    if file is not None:
        return read_pieces(file, progress, any_bytes=model.tokenizer.reads_any_bytes)
    sample = model.bundle.text_sample()
    if sample is None:
        raise UsageError(
            f"{model.bundle.path} carries no sample of its run's text to score; give a FILE"
        )
    tell(f"Scoring {sample.description}.", err=True)
    data = b"".join(model.tokenizer.token_bytes[token] for token in sample.tokens.tolist())
    if model.tokenizer.reads_any_bytes:
        return [data.decode("utf-8", "surrogateescape")]
    return [data.decode("utf-8", "ignore")]  # it may begin and end within a character

"""``rillet generate``: stream text from a bundle."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from .model import load
from .session import LEARN_MODES, unknown_text

__all__ = ["generate"]


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("prompt", default="")
@click.option(
    "--max-new-tokens", type=click.IntRange(0), default=200, show_default=True, metavar="N",
    help="Tokens to generate.",
)  # fmt: skip
@click.option(
    "--temperature", type=click.FloatRange(0), metavar="T",
    help="Divides the logits; 0 always takes the likeliest token. Default: the bundle's.",
)  # fmt: skip
@click.option(
    "--top-k", type=click.IntRange(0), metavar="K",
    help="Keep the K likeliest tokens; 0 keeps all.",
)  # fmt: skip
@click.option(
    "--top-p", type=click.FloatRange(0, 1, min_open=True), metavar="P",
    help="Keep the smallest set of likeliest tokens that reaches this probability.",
)  # fmt: skip
@click.option(
    "--seed", type=click.IntRange(0), metavar="S", help="The same seed gives the same text."
)
@click.option(
    "--learn", type=click.Choice(LEARN_MODES), default="read", show_default=True,
    help="What the stream's memory stores: what it reads, all, or nothing.",
)  # fmt: skip
@click.option(
    "--provider", type=click.Choice(["auto", "cpu"]), default="auto", show_default=True,
    help="The execution provider.",
)  # fmt: skip
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
def generate(
    bundle: Path,
    prompt: str,
    max_new_tokens: int,
    learn: str,
    provider: str,
    threads: int,
    **sampling: Any,
) -> None:
    """Stream text from BUNDLE, continuing PROMPT."""
    model = load(bundle, provider, threads)
    params = model.sampling(**{name: v for name, v in sampling.items() if v is not None})
    unknown = model.tokenizer.unknown(prompt)
    if unknown:
        click.echo(f"Note: {unknown_text(unknown)}", err=True)
    session = model.session(learn)
    session.feed_tokens(model.tokenizer.encode(prompt))
    _write(prompt)
    for piece in session.stream(params, max_new_tokens=max_new_tokens):
        _write(piece)
    _write("\n")


def _write(text: str) -> None:
    """Write at once, whatever characters the terminal's encoding lacks."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
    sys.stdout.flush()

"""``rillet generate``: stream text from a bundle."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click

from ..errors import UsageError
from ..interrupt import Interrupt, interruptible
from ..model import Model, load
from ..sampling.params import SamplingParams
from ..streams.encoding import unknown_text
from ..streams.session import Session
from ..streams.stream import LEARN_MODES, LearnMode
from ..streams.text_stream import TextStream
from .interactive import converse
from .options import engine_options
from .sampling_options import sampling_options
from .text_files import read_pieces

__all__ = ["generate"]

_BITE = 2_048
"""Tokens of a prompt read before Ctrl-C is looked for again: a quarter of a second."""


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("prompt", default="")
@click.option(
    "--file",
    "-f",
    type=click.Path(path_type=Path, allow_dash=True),
    metavar="TEXT",
    help="Read the prompt from this file; - is standard input.",
)
@sampling_options
@click.option(
    "--n",
    "count",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="Texts to generate; each takes the next seed.",
)
@click.option(
    "--learn",
    type=click.Choice(LEARN_MODES),
    default="read",
    show_default=True,
    help="What the stream's memory stores: what it reads, all, or nothing.",
)
@click.option(
    "--memory/--no-memory", default=True, show_default=True, help="Give the stream a memory."
)
@click.option(
    "--learn-from",
    type=click.Path(path_type=Path, allow_dash=True),
    metavar="TEXT",
    help="Teach the memory this file first.",
)
@click.option(
    "--load-state",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Continue a saved stream; without PROMPT, in mid-sentence.",
)
@click.option(
    "--save-state",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Save the stream at the end, or on Ctrl-C.",
)
@click.option(
    "--interactive", "-i", is_flag=True, help="Read lines and answer each, all in one stream."
)
@click.option("--json", "as_json", is_flag=True, help="Write a line of JSON for each text.")
@click.option(
    "--stream/--no-stream",
    "streaming",
    default=True,
    show_default=True,
    help="Write the text as it comes, or all at once.",
)
@click.option("--stats", is_flag=True, help="Report the speed, on stderr.")
@engine_options
def generate(
    bundle: Path,
    prompt: str,
    file: Path | None,
    count: int,
    learn: LearnMode,
    memory: bool,
    learn_from: Path | None,
    load_state: Path | None,
    save_state: Path | None,
    interactive: bool,
    as_json: bool,
    streaming: bool,
    stats: bool,
    grammar_file: Path | None,
    provider: str,
    threads: int,
    allow_fallback: bool,
    **sampling: Any,
) -> None:
    """Stream text from BUNDLE, continuing PROMPT (- is standard input)."""
    if file is not None and prompt:
        raise UsageError("there are a prompt and --file; give one of them")
    if interactive and (as_json or count > 1 or "-" in (prompt, str(file))):
        raise UsageError("--interactive reads lines and writes text; leave out --json, --n and -")
    if save_state is not None and count > 1:
        raise UsageError("--save-state saves one stream, and --n makes several; leave one out")
    changes = {name: v for name, v in sampling.items() if v is not None and v != ()}
    if grammar_file is not None:
        changes["grammar"] = "".join(read_pieces(grammar_file))
    model = load(bundle, provider, threads, allow_fallback=allow_fallback)
    params = model.sampling(**changes)
    session = model.session(learn, memory) if load_state is None else model.restore(load_state)
    if learn_from is not None:
        session.learn(read_pieces(learn_from))
    where = Path("-") if prompt == "-" else file
    pieces = [prompt] if where is None else read_pieces(where)
    with interruptible() as interrupt:
        # A stream that is interrupted is whole: it ends between two tokens, and all that was
        # written has been read back.
        try:
            read = _read(session, pieces, interrupt)
            if interactive:
                converse(session, params, _write, interrupt)
                return
            interrupted = load_state is not None and not read and session.can_resume
            resume_only = interrupted and not set(changes) - {"max_new_tokens"} and count == 1
            for index in range(count):
                seed = None if params.seed is None else params.seed + index
                stream = (
                    session.resume(changes.get("max_new_tokens"))
                    if resume_only
                    else _begin(session, params, seed, last=index == count - 1)
                )
                interrupt.then = stream.cancel
                if interrupt.asked:
                    break
                shown = stream if streaming or as_json else _at_its_end(stream)
                _show(model, stream, shown, read if not as_json else "", as_json, count > 1)
                if stats:
                    _say_how_fast(model, stream)
        finally:
            if save_state is not None:
                session.save(save_state)
    if interrupt.asked:
        raise click.Abort


def _read(session: Session, pieces: Iterable[str], interrupt: Interrupt) -> str:
    """Feed a prompt; return it, to be shown."""
    kept: list[str] = []

    def keeping() -> Iterator[str]:
        waiting = iter(pieces)
        while True:
            with interrupt.at_once():  # standard input may keep us waiting
                piece = next(waiting, None)
            if piece is None:
                return
            kept.append(piece)
            yield piece

    unknown: dict[str, None] = {}
    for tokens in session.model.tokenizer.encode_stream(keeping()):
        for start in range(0, len(tokens), _BITE):
            session.feed_tokens(tokens[start : start + _BITE])
            if interrupt.asked:
                raise click.Abort
    prompt = "".join(kept)
    unknown.update(dict.fromkeys(session.model.tokenizer.unknown(prompt)))
    if unknown:
        click.echo(f"Note: {unknown_text(list(unknown))}", err=True)
    return prompt


def _begin(session: Session, params: SamplingParams, seed: int | None, last: bool) -> TextStream:
    writer = session if last else session.fork()
    return writer.stream(params, seed=seed)


def _at_its_end(stream: TextStream) -> Iterator[str]:
    yield "".join(stream)


def _show(
    model: Model,
    stream: TextStream,
    pieces: Iterable[str],
    prompt: str,
    as_json: bool,
    several: bool,
) -> None:
    if as_json:
        text = "".join(pieces)
        figures = {
            "text": text,
            "finish_reason": stream.finish_reason,
            "tokens": stream.stats.tokens,
            "seconds": round(stream.stats.seconds, 6),
            "provider": model.engine.provider,
        }
        click.echo(json.dumps(figures))
    else:
        _write(prompt)
        for piece in pieces:
            _write(piece)
        _write("\n\n" if several else "\n")


def _say_how_fast(model: Model, stream: TextStream) -> None:
    taken = stream.stats
    rate = taken.tokens / taken.seconds if taken.seconds else 0.0
    first = 0.0 if taken.first_token_seconds is None else taken.first_token_seconds
    click.echo(
        f"{taken.tokens} tokens, {rate:,.0f} a second, the first after {first * 1e3:.2f} ms, "
        f"on {model.engine.provider}; ended by {taken.finish_reason}",
        err=True,
    )


def _write(text: str) -> None:
    """Write at once, whatever characters the terminal's encoding lacks."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
    sys.stdout.flush()

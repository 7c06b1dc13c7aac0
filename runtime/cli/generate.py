"""``rillet generate``: stream text from a bundle."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click

from ..engines.base import ProviderChoice
from ..errors import UsageError
from ..files import check_writable
from ..interrupt import Interrupt, interruptible
from ..model import Model, load
from ..streams.best_of import MOST_DRAFTS
from ..streams.encoding import encode_pieces
from ..streams.generation import GeneratedToken
from ..streams.session import Session
from ..streams.stream import LEARN_MODES, LearnMode
from ..streams.text_stream import TextStream
from ..tokenizer import text_bytes
from .interactive import converse
from .options import engine_options
from .sampling_options import sampling_changes, sampling_options
from .stopping import stopped
from .terminal import tell
from .text_files import read_pieces
from .text_output import TextOutput

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
    "--best-of",
    type=click.IntRange(1, MOST_DRAFTS),
    default=1,
    show_default=True,
    metavar="N",
    help="Draft N texts, and write the one whose tokens are likeliest on average.",
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
    "--taught/--untaught",
    default=True,
    show_default=True,
    help="Begin with what BUNDLE was taught, if anything, or at zeros.",
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
@click.option(
    "--echo/--no-echo", default=True, show_default=True, help="Write the prompt before the text."
)
@click.option("--json", "as_json", is_flag=True, help="Write a line of JSON for each text.")
@click.option(
    "--logprobs",
    type=click.IntRange(0),
    metavar="N",
    help="With --json: add each token's log-probability, and the N likeliest tokens'.",
)
@click.option(
    "--stream/--no-stream",
    "streaming",
    default=True,
    show_default=True,
    help="Write the text as it comes, or all at once.",
)
@click.option("--stats", is_flag=True, help="Report the speed and the seed, on stderr.")
@engine_options
def generate(
    bundle: Path,
    prompt: str,
    file: Path | None,
    count: int,
    best_of: int,
    learn: LearnMode,
    memory: bool,
    taught: bool,
    learn_from: Path | None,
    load_state: Path | None,
    save_state: Path | None,
    interactive: bool,
    echo: bool,
    as_json: bool,
    logprobs: int | None,
    streaming: bool,
    stats: bool,
    provider: ProviderChoice,
    threads: int,
    allow_fallback: bool,
    **sampling: Any,
) -> None:
    """Stream text from BUNDLE, continuing PROMPT (- is standard input)."""
    if file is not None and prompt:
        raise UsageError("there are a prompt and --file; give one of them")
    if interactive and (as_json or count * best_of > 1 or "-" in (prompt, str(file))):
        raise UsageError(
            "--interactive reads lines and writes text; leave out --json, --n, --best-of and -"
        )
    if save_state is not None and count > 1:
        raise UsageError("--save-state saves one stream, and --n makes several; leave one out")
    if logprobs is not None and not as_json:
        raise UsageError("--logprobs adds to what --json writes; give both")
    if save_state is not None:
        check_writable(save_state)
    changes = sampling_changes(sampling)
    if logprobs:
        changes["top_logprobs"] = logprobs
    model = load(bundle, provider, threads, allow_fallback=allow_fallback)
    model.sampling(**changes)  # refused before anything is read
    any_bytes = model.tokenizer.reads_any_bytes
    session = (
        model.session(learn, memory, taught) if load_state is None else model.restore(load_state)
    )
    if learn_from is not None:
        session.learn(read_pieces(learn_from, any_bytes=any_bytes))
    source = Path("-") if prompt == "-" else file
    pieces = [prompt] if source is None else read_pieces(source, any_bytes=any_bytes)
    with interruptible() as interrupt:
        output = TextOutput(any_bytes, interrupt)
        # An interrupted stream is whole: it ends between two tokens, and all that was written has
        # been read back.
        try:
            read = _read(session, pieces, interrupt)
            # Of a saved stream's options, only those that are given change.
            params = model.sampling(session.last_sampling, **changes)
            if interactive:
                converse(session, params, output, interrupt)
                return
            for index in range(count):
                is_one = count == best_of == 1
                if load_state is not None and not read and session.can_resume and is_one:
                    stream = session.resume(**changes)
                else:
                    seed = None if params.seed is None else params.seed + index * best_of
                    if best_of > 1:
                        seed = session.best_seed(best_of, params, seed=seed, watch=interrupt.watch)
                    writer = session if index == count - 1 else session.fork()
                    stream = writer.stream(params, seed=seed)
                interrupt.callback = stream.cancel
                if interrupt.requested:
                    break
                if as_json:
                    _write_json(model, stream, logprobs is not None)
                else:
                    output.write(text_bytes(read) if echo else b"")
                    output.write_stream(stream, streaming)
                    output.write(b"\n\n" if count > 1 else b"\n")
                if stats:
                    _report(model, stream)
        finally:
            if save_state is not None:
                session.save(save_state)
    if interrupt.requested:
        raise stopped(interrupt)


def _read(session: Session, pieces: Iterable[str], interrupt: Interrupt) -> str:
    """Feed a prompt, and return it to be shown."""
    kept: list[str] = []

    def keeping() -> Iterator[str]:
        waiting = iter(pieces)
        while True:
            with interrupt.raise_at_once():  # standard input may keep us waiting
                piece = next(waiting, None)
            if piece is None:
                return
            kept.append(piece)
            yield piece

    for tokens in encode_pieces(session.model.tokenizer, keeping()):
        for start in range(0, len(tokens), _BITE):
            session.feed_tokens(tokens[start : start + _BITE])
            if interrupt.requested:
                raise stopped(interrupt)
    return "".join(kept)


def _write_json(model: Model, stream: TextStream, logprobs: bool) -> None:
    tokens = list(stream.tokens)
    line: dict[str, Any] = {
        "text": "".join(token.text for token in tokens),
        "finish_reason": stream.finish_reason,
        "stop_string": stream.stop_string,
        "tokens": stream.stats.tokens,
        "seconds": round(stream.stats.seconds, 6),
        "seed": stream.seed,
        "provider": model.engine.provider,
    }
    if model.tokenizer.reads_any_bytes:  # JSON is text, and what was written may be none
        line["bytes"] = base64.b64encode(b"".join(token.data for token in tokens)).decode()
    if logprobs:
        line["logprobs"] = [_logprob(model, token) for token in tokens]
    tell(json.dumps(line))


def _logprob(model: Model, token: GeneratedToken) -> dict[str, Any]:
    decode = model.tokenizer.decode
    top = [{"token": decode([number]), "logprob": logprob} for number, logprob in token.top]
    return {"token": decode([token.token]), "logprob": token.logprob, "top": top}


def _report(model: Model, stream: TextStream) -> None:
    stats = stream.stats
    rate = stats.tokens / stats.seconds if stats.seconds else 0.0
    first = 0.0 if stats.first_token_seconds is None else stats.first_token_seconds
    tell(
        f"{stats.tokens} tokens, {rate:,.0f} a second, the first after {first * 1e3:.2f} ms, "
        f"on {model.engine.provider}, seed {stream.seed}; ended by {stats.finish_reason}",
        err=True,
    )

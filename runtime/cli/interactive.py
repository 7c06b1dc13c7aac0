"""A stream that one talks to, line by line; its state is kept in between."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import Any

import click

from ..interrupt import Interrupt
from ..sampling.params import SamplingParams
from ..streams.encoding import UnknownCharacterWarning
from ..streams.session import Session

__all__ = ["converse"]

HELP = "Commands: /reset, /forget, /learn TEXT, /save FILE, /help; Ctrl-C ends a text, Ctrl-D all."


def converse(
    session: Session, params: SamplingParams, write: Callable[[str], Any], interrupt: Interrupt
) -> None:
    """Read lines from standard input; after each, let the stream write until it stops.

    Args:
        session: The stream.
        params: How it samples; without stop strings, it writes until a line ends.
        write: Called with each piece of text.
        interrupt: Ctrl-C ends a text; while nothing is written, it raises.
    """
    import warnings

    if sys.stdin.isatty():
        click.echo(HELP, err=True)
    while True:
        if sys.stdin.isatty():
            click.echo("> ", err=True, nl=False)
        with interrupt.at_once():
            line = sys.stdin.readline()
        if not line:
            return
        if line.startswith("/"):
            _command(session, line.rstrip("\n"))
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnknownCharacterWarning)
            session.feed(line if line.endswith("\n") else line + "\n")
        stream = session.stream(params, stop=params.stop or "\n")
        interrupt.then = stream.cancel
        for piece in stream:
            write(piece)
        interrupt.then = None
        write("\n")
        if interrupt.by == signal.SIGTERM:
            return
        interrupt.asked = False


def _command(session: Session, line: str) -> None:
    name, _, rest = line.partition(" ")
    if name == "/reset":
        session.reset()
    elif name == "/forget":
        session.forget()
    elif name == "/learn":
        session.learn(rest)
    elif name == "/save" and rest:
        session.save(rest)
    else:
        click.echo(HELP, err=True)

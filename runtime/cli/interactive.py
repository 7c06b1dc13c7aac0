"""An interactive stream: reads a line, writes an answer, and keeps its state in between."""

from __future__ import annotations

import io
import signal
import sys
import warnings

from ..errors import CorpusError, RilletError
from ..interrupt import Interrupt
from ..sampling.params import SamplingParams
from ..streams.encoding import UnknownCharacterWarning
from ..streams.session import Session
from .terminal import tell
from .text_output import TextOutput

__all__ = ["converse"]

HELP = (
    "Commands: /reset, /forget, /learn TEXT, /save FILE, /help; Ctrl-C ends a text, Ctrl-D quits."
)


def converse(
    session: Session, params: SamplingParams, output: TextOutput, interrupt: Interrupt
) -> None:
    """Read lines from standard input, and generate a text after each.

    Args:
        session: The stream.
        params: How to sample; without stop strings, a text ends at the end of a line.
        output: Where each text goes.
        interrupt: Ctrl-C ends a text; while waiting for a line, it raises.
    """
    if sys.stdin is None:
        raise CorpusError("standard input is closed; give a file")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # the model says whether it reads bytes
    if sys.stdin.isatty():
        tell(HELP, err=True)
    while True:
        if sys.stdin.isatty():
            tell("> ", err=True, nl=False)
        with interrupt.raise_at_once():
            line = sys.stdin.readline()
        if not line:
            return
        try:
            if line.startswith("/"):
                _run_command(session, line.rstrip("\n"))
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UnknownCharacterWarning)
                session.feed(line if line.endswith("\n") else line + "\n")
        except RilletError as error:  # a mistyped path or a stray byte must not end the stream
            tell(f"Error: {error}", err=True)
            continue
        stream = session.stream(params, stop=params.stop or "\n")
        interrupt.callback = stream.cancel
        output.write_stream(stream)
        interrupt.callback = None
        output.write(b"\n")
        if interrupt.signal_number == signal.SIGTERM:
            return
        interrupt.requested = False


def _run_command(session: Session, line: str) -> None:
    name, _, argument = line.partition(" ")
    if name == "/reset":
        session.reset()
        tell("Started over.", err=True)
    elif name == "/forget":
        session.forget()
        what = "what the bundle taught" if session.taught else "empty"
        tell(f"The memory is {what}.", err=True)
    elif name == "/learn" and argument:
        tell(f"Learned {session.learn(argument)} tokens.", err=True)
    elif name == "/save" and argument:
        session.save(argument)
        tell(f"Saved to {argument}.", err=True)
    elif name == "/help":
        tell(HELP, err=True)
    else:
        tell(f"{line} is not a command. {HELP}", err=True)

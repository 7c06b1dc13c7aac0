"""Suggest text as you type: each keystroke is a step of the stream, each suggestion a fork of it.

python examples/autocomplete.py models/shakespeare-nano

Tab accepts the suggestion, Backspace deletes, Enter ends the line, Ctrl-D quits. Without a
terminal, keystrokes come from standard input, and the script answers each with a line of text.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import re
import sys
import termios
import tty
import warnings
from argparse import ArgumentParser, RawTextHelpFormatter
from collections.abc import Iterator
from pathlib import Path

from rillet.runtime import RilletError, Session, UnknownCharacterWarning, load


def suggest(session: Session) -> str:
    """The likeliest rest of the word, or next word; the session itself does not advance."""
    text = ""
    with session.fork() as twin:
        for piece in twin.stream(temperature=0, max_new_tokens=24):
            if piece == "\n" or (piece.isspace() and text.strip()):
                break
            text += piece
    return text


def keystrokes() -> Iterator[str]:
    """Yield characters of standard input as they arrive, until Ctrl-D or the end."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    while data := os.read(sys.stdin.fileno(), 64):
        # Arrows and other keys that type nothing send an escape sequence.
        for key in re.sub(r"\x1b\[?[\d;]*[A-Za-z~]?", "", decoder.decode(data)):
            if key == "\x04":
                return
            yield "\n" if key == "\r" else key


def type_lines(session: Session, terminal: bool) -> None:
    """Show the typed text, and the suggestion dimmed after the cursor."""
    text, suggestion = "", suggest(session)
    before = [session]  # the stream at each length of the line, so that deleting is free
    for key in keystrokes():
        if key in "\x7f\b":
            if text:
                text = text[:-1]
                before.pop().close()
        else:
            for character in suggestion if key == "\t" else key:
                before.append(before[-1].fork())
                before[-1].feed(character)
                text += character
        suggestion = "" if key == "\n" else suggest(before[-1])
        if not terminal:
            print(f"{text!r} + {suggestion!r}", flush=True)
        elif key != "\n":
            back = f"\x1b[{len(suggestion)}D" if suggestion else ""
            print(f"\r\x1b[K{text}\x1b[2m{suggestion}\x1b[0m{back}", end="", flush=True)
        if key == "\n":
            if terminal:
                print(f"\r\x1b[K{text}", end="", flush=True)
            text, before = "", before[-1:]


def main() -> None:
    """Set up the terminal, and restore it."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawTextHelpFormatter)
    parser.add_argument("bundle", type=Path)
    # The model skips typed characters that it does not know.
    warnings.simplefilter("ignore", UnknownCharacterWarning)
    session = load(parser.parse_args().bundle).session()
    session.feed("\n")
    if not sys.stdin.isatty():
        return type_lines(session, terminal=False)
    settings = termios.tcgetattr(sys.stdin)
    # Read key by key without echo, including keys already typed; Ctrl-C still works.
    tty.setcbreak(sys.stdin, termios.TCSADRAIN)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            type_lines(session, terminal=True)
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, settings)
        print()


if __name__ == "__main__":
    try:
        main()
    except (OSError, RilletError) as error:
        sys.exit(f"Error: {error}")

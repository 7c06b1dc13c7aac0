"""A keyboard with three suggestions that learns its user: how many keystrokes do they save?

python examples/keyboard.py models/shakespeare-nano my-notes.txt --read my-older-notes.txt

Types a text as a user would who takes a suggestion as soon as the word is among them: a tap is one
key, and types the rest of the word and a space. Before that, the stream may read what the user
wrote earlier. Nothing is trained: the stream's memory learns whatever it reads.
"""

from __future__ import annotations

import heapq
import math
import sys
import time
import warnings
from argparse import ArgumentParser, RawTextHelpFormatter
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path

import numpy as np

import rillet.runtime
from rillet.runtime import RilletError, Session, UnknownCharacterWarning


def letters(text: str) -> str:
    """The letters and apostrophes that a text begins with."""
    return "".join(takewhile(lambda character: character.isalpha() or character == "'", text))


def suggest(session: Session, words: int = 3, effort: int = 40) -> list[str]:
    """The likeliest rests of the word, or next words; the session itself does not advance.

    The likeliest beginning is extended first, so the words that end first are the likeliest. The
    search gives up after ``effort`` steps of the model.
    """
    pieces = session.model.tokenizer.token_bytes
    found: list[str] = []
    queue: list[tuple[float, str, tuple[int, ...], bool]] = [(0.0, "", (), False)]
    with session.fork() as twin:
        here = twin.checkpoint()
        while queue and len(found) < words and effort:
            cost, text, tokens, complete = heapq.heappop(queue)
            if complete:
                found += [text] if text not in found else []
                continue
            twin.rollback(here)
            twin.feed_tokens(tokens)
            effort -= 1
            logits = np.asarray(twin.logits)
            ends: dict[str, float] = {}
            for token in np.flatnonzero(logits > -7).tolist():  # the rest is too unlikely
                piece, logprob = pieces[token].decode(errors="replace"), float(logits[token])
                longer = text + letters(piece)
                if piece and piece == letters(piece):
                    heapq.heappush(queue, (cost - logprob, longer, (*tokens, token), False))
                elif longer:
                    ends[longer] = ends.get(longer, 0.0) + math.exp(logprob)
            for word, chance in ends.items():
                heapq.heappush(queue, (cost - math.log(chance), word, tokens, True))
    return found


def type_text(text: str, read: Callable[[str], object], suggest: Callable[[], list[str]]) -> int:
    """Type a text, and count the keys; ``read`` gets what each key types."""
    keys = place = 0
    while place < len(text):
        rest, end = letters(text[place : place + 100]), place + 1
        if rest and rest in suggest():
            end = place + len(rest) + text.startswith(" ", place + len(rest))
        read(text[place:end])
        keys, place = keys + 1, end
    return keys


def main() -> None:
    """Type a text, and print the share of keystrokes saved."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawTextHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("text", type=Path, help="a text to type, in UTF-8")
    parser.add_argument("--read", type=Path, help="a text that the stream reads before")
    options = parser.parse_args()
    warnings.simplefilter("ignore", UnknownCharacterWarning)
    text = options.text.read_text(encoding="utf-8") or sys.exit("Error: there is nothing to type")
    session = rillet.runtime.load(options.bundle).session()
    session.feed("\n" if options.read is None else options.read.read_text(encoding="utf-8"))
    begun = time.process_time()
    keys = type_text(text, session.feed, lambda: suggest(session))
    cost = (time.process_time() - begun) * 1_000 / keys
    print(f"{1 - keys / len(text):.1%} of {len(text)} keystrokes saved, {cost:.1f} ms a key")


if __name__ == "__main__":
    try:
        main()
    except (OSError, RilletError) as error:
        sys.exit(f"Error: {error}")

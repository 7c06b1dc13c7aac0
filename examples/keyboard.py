"""A keyboard with three suggestions that learns its user: how many keystrokes do they save?

python examples/keyboard.py models/shakespeare-nano my-notes.txt --read my-older-notes.txt

Types a text as a user would who takes a suggestion as soon as the word is among them: a tap is one
key, and types the rest of the word and a space. Before that, the stream may read what the user
wrote earlier. Nothing is trained: the stream's memory learns whatever it reads.
"""

from __future__ import annotations

import heapq
import math
import re
import sys
import time
import warnings
from argparse import ArgumentParser, RawTextHelpFormatter
from collections.abc import Callable
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

import rillet.runtime
from rillet.runtime import RilletError, Session, UnknownCharacterWarning

ENDED = re.compile(r".*\S(?=\s)", re.DOTALL)  # no token reaches over this boundary
WORD = re.compile(r" ?(?:[^\W\d_]|')*\Z")  # what was typed of a word, with the space before it


def letters(text: str) -> str:
    """The letters and apostrophes that a text begins with."""
    return "".join(takewhile(lambda character: character.isalpha() or character == "'", text))


@lru_cache(10_000)
def begins(piece: bytes) -> tuple[bytes, bool]:
    """The letters that a piece begins with, and whether the word may go on after it."""
    text = piece.decode(errors="replace").rstrip("\ufffd")  # half a character, perhaps
    found = letters(text)
    return found.encode(), found == text


class Keyboard:
    """Suggests words while a text is typed.

    A token may end inside a word, or begin with the space before it, and which tokens a word is
    made of depends on all of its letters. So the stream reads words that have ended, and a
    suggestion weighs all tokens that go on as the word was begun.

    Args:
        session: A stream. It advances with what is typed.
        effort: Steps of the model for one suggestion, at most.
    """

    def __init__(self, session: Session, effort: int = 40) -> None:
        if session.logits is None:
            session.feed_tokens([session.model.start_token])
        self.session, self.effort = session, effort
        self._pieces = session.model.tokenizer.token_bytes
        self._matching = lru_cache(10_000)(self._find_matching)
        self._begun = ""
        self._twin = session.fork()
        self._start()

    def read(self, text: str) -> None:
        """Read what was typed."""
        self._begun += text
        if ended := ENDED.match(self._begun):
            self.session.feed(ended[0])
            self._begun = self._begun[ended.end() :]
            self._start()

    def suggest(self, words: int = 3) -> list[str]:
        """The likeliest rests of the word, or next words.

        The likeliest beginning is extended first, so the words that end first are the likeliest.
        """
        found: list[str] = []
        effort = self.effort
        match = WORD.search(self._begun)
        typed_at = match.start() if match else len(self._begun)
        typed = self._begun[typed_at:].encode()
        before = tuple(self.session.model.tokenizer.encode(self._begun[:typed_at]))
        queue: list[tuple[float, bytes, tuple[int, ...], bool]] = [(0.0, b"", before, False)]
        while queue and len(found) < words:
            cost, word, tokens, complete = heapq.heappop(queue)
            if complete:
                ending = word[len(typed) :].decode(errors="replace")
                found += [ending] if ending == letters(ending) and ending not in found else []
                continue
            effort -= tokens not in self._known
            if effort < 0:
                break
            logprobs, rest = self._predicted(tokens), typed[len(word) :]
            going, closing = self._matching(rest)
            if len(word) > len(typed):
                ends = cost - math.log(np.exp(logprobs[closing]).sum() + 1e-30)
                heapq.heappush(queue, (ends, word, tokens, True))
            known = max(len(word), len(typed))
            # No more beginnings than that can be extended.
            chosen = going[np.argsort(-logprobs[going])[: self.effort]]
            for token, logprob in zip(chosen.tolist(), logprobs[chosen].tolist(), strict=True):
                longer = word + self._pieces[token]
                lead, goes_on = begins(longer[known:])
                if not goes_on:
                    longer = longer[: known + len(lead)]
                queued = (cost - logprob, longer, (*tokens, token), not goes_on)
                heapq.heappush(queue, queued)
        return found

    def _start(self) -> None:
        """Begin a word where the stream is."""
        self._here = self.session.checkpoint()
        self._twin.rollback(self._here)
        self._at: tuple[int, ...] = ()
        self._known: dict[tuple[int, ...], Any] = {}

    def _predicted(self, tokens: tuple[int, ...]) -> Any:
        """Log-probabilities of what follows tokens, ``[V]``."""
        if tokens not in self._known:
            if tokens[: len(self._at)] != self._at:
                self._twin.rollback(self._here)
                self._at = ()
            self._twin.feed_tokens(tokens[len(self._at) :])
            self._at = tokens
            self._known[tokens] = np.array(self._twin.logits)
        return self._known[tokens]

    def _find_matching(self, rest: bytes) -> tuple[Any, Any]:
        """The tokens that bring letters of a word, if it goes on so, and those that end it."""
        going: list[int] = []
        closing: list[int] = []
        for number, piece in enumerate(self._pieces):
            if piece.startswith(rest) or rest.startswith(piece):
                lead, goes_on = begins(piece[len(rest) :])
                (going if lead or goes_on else closing).append(number)
        return np.asarray(going, np.int64), np.asarray(closing, np.int64)


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
    keyboard = Keyboard(session)
    keyboard.read("\n" if options.read is None else options.read.read_text(encoding="utf-8"))
    begun = time.process_time()
    keys = type_text(text, keyboard.read, keyboard.suggest)
    cost = (time.process_time() - begun) * 1_000 / keys
    print(f"{1 - keys / len(text):.1%} of {len(text)} keystrokes saved, {cost:.1f} ms a key")


if __name__ == "__main__":
    try:
        main()
    except (OSError, RilletError) as error:
        sys.exit(f"Error: {error}")

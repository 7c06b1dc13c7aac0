"""Keystrokes that suggestions save, before and after the keyboard has read its user.

    python benchmarks/keyboard.py BUNDLE... --corpus TRAINING --text HELDOUT [--json FILE]

Types text of each book in HELDOUT (books are apart by two empty lines) with the suggestions of
examples/keyboard.py, and with those of an n-gram keyboard that was given the same training text
(lib/word_keyboard.py). Each keyboard types the same characters after it has read the 20,000 before
them, the user's, and without. It learns what is typed, in both cases.

Keystrokes saved are those of Trnka and McCoy (2008): one minus keys over characters, for a user who
takes the word as soon as it is shown. The limit is what a keyboard saves that always knows.
"""

from __future__ import annotations

import runpy
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import rillet.runtime
from lib.arguments import text_parser
from lib.results import write_results
from lib.word_keyboard import WordKeyboard
from rillet.runtime import UnknownCharacterWarning

EXAMPLE = runpy.run_path(str(Path(__file__).parents[1] / "examples" / "keyboard.py"))
NGRAMS = "n-gram keyboard"

Keyboard = tuple[Callable[[str], object], Callable[[], list[str]]]
"""What reads a text, and what suggests."""


def main() -> None:
    parser = text_parser(__doc__)
    parser.add_argument("--read", type=int, default=20_000, help="characters of the user (20,000)")
    parser.add_argument("--type", type=int, default=10_000, help="characters to type (10,000)")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", UnknownCharacterWarning)
    corpus = arguments.corpus.read_text(encoding="utf-8")
    books = arguments.text.read_text(encoding="utf-8").split("\n\n\n")
    cut = [split(book, arguments.read, arguments.type) for book in books]
    makers: dict[str, Callable[[], Keyboard]] = {NGRAMS: partial(ngrams, corpus)}
    for bundle in arguments.bundles:
        makers[bundle] = partial(rillet_keyboard, bundle)
    print("saved before    after    limit  ms a key")
    figures: dict[str, Any] = {}
    for name, make in makers.items():
        rows = [compare(make, read, typed) for read, typed in cut]
        mean = {key: sum(row[key] for row in rows) / len(rows) for key in rows[0]}
        figures[name] = {"books": rows, "mean": mean}
        shares = "".join(f"{mean[key]:9.1%}" for key in ("before", "after", "limit"))
        print(f"   {shares} {mean['ms']:9.2f}  {name}", flush=True)
    write_results(arguments.json, figures)


def split(book: str, read: int, typed: int) -> tuple[str, str]:
    """What the user wrote before, and what he types: the beginning of a book, from a paragraph."""
    start = book.find("\n\n", read) + 2
    return book[:start], book[start : start + typed]


def compare(make: Callable[[], Keyboard], read: str, typed: str) -> dict[str, float]:
    """Shares of keystrokes saved, and thread time for each key."""
    before, _ = saved(make(), "\n", typed)
    after, ms = saved(make(), read, typed)
    limit, _ = saved(knows_all(typed), "", typed)
    return {"before": before, "after": after, "limit": limit, "ms": ms}


def saved(keyboard: Keyboard, first: str, typed: str) -> tuple[float, float]:
    """The share of keystrokes saved after reading a text, and milliseconds of each key."""
    read, suggest = keyboard
    read(first)
    begun = time.thread_time()
    keys = EXAMPLE["type_text"](typed, read, suggest)
    return 1 - keys / len(typed), (time.thread_time() - begun) * 1_000 / keys


def rillet_keyboard(bundle: str) -> Keyboard:
    session = rillet.runtime.load(bundle).session()
    return session.feed, lambda: EXAMPLE["suggest"](session)


def ngrams(corpus: str) -> Keyboard:
    keyboard = WordKeyboard(corpus)
    return keyboard.read, keyboard.suggest


def knows_all(text: str) -> Keyboard:
    """A keyboard that shows the right word at once."""
    place = 0

    def read(typed: str) -> None:
        nonlocal place
        place += len(typed)

    return read, lambda: [EXAMPLE["letters"](text[place : place + 100])]


if __name__ == "__main__":
    main()

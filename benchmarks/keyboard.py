"""Keystrokes that suggestions save, before and after the keyboard has read its user.

    python benchmarks/keyboard.py BUNDLE... --corpus TRAINING --text HELDOUT [--json FILE]

Types text of each book in HELDOUT (books are apart by two empty lines) with the suggestions of
examples/keyboard.py, and with those of an n-gram keyboard that was given the same training text
(lib/word_keyboard.py). Each keyboard types the same characters after it has read the 20,000 before
them, the user's, and without. It learns what is typed, in both cases; so the first 2,000 characters
are also counted alone.

Keystrokes saved are those of Trnka and McCoy (2008): one minus keys over characters, for a user who
takes the word as soon as it is shown. The limit is what a keyboard saves that always knows.
"""

from __future__ import annotations

import copy
import runpy
import statistics
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
FIRST = 2_000

COLUMNS = {
    "before": "before",
    "after": "after",
    "gain": "gain",
    "first_before": "first 2,000, before",
    "first_after": "after",
    "first_gain": "gain",
    "limit": "limit",
    "us": "µs a key",
}

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
    makers: dict[str, Callable[[], Keyboard]] = {NGRAMS: ngrams(corpus)}
    for bundle in arguments.bundles:
        makers[bundle] = partial(rillet_keyboard, bundle)
    print("| " + " | ".join(COLUMNS.values()) + " | |\n" + "| --- " * (len(COLUMNS) + 1) + "|")
    figures: dict[str, Any] = {}
    for name, make in makers.items():
        rows = [compare(make, read, typed) for read, typed in cut]
        figures[name] = {
            "books": rows,
            "mean": {key: statistics.fmean(row[key] for row in rows) for key in COLUMNS},
            "sd": {key: statistics.pstdev(row[key] for row in rows) for key in COLUMNS},
        }
        print(
            f"| {' | '.join(shown(key, figures[name]) for key in COLUMNS)} | {name} |", flush=True
        )
        write_results(arguments.json, figures)


def shown(key: str, figures: dict[str, Any]) -> str:
    """A figure as the table has it: gains with their standard deviation over the books."""
    mean, deviation = figures["mean"][key], figures["sd"][key]
    if key == "us":
        return f"{mean:.0f}"
    return f"{mean:.1%}" + f" ± {deviation:.1%}" * key.endswith("gain")


def split(book: str, read: int, typed: int) -> tuple[str, str]:
    """What the user wrote before, and what he types: the beginning of a book, from a paragraph."""
    start = book.find("\n\n", read) + 2
    return book[:start], book[start : start + typed]


def compare(make: Callable[[], Keyboard], read: str, typed: str) -> dict[str, float]:
    """Shares of keystrokes saved, and the thread's time for each key."""
    before, first_before, _ = saved(make(), "\n", typed)
    after, first_after, microseconds = saved(make(), read, typed)
    limit, _, _ = saved(knows_all(typed), "", typed)
    return {
        "before": before,
        "after": after,
        "gain": after - before,
        "first_before": first_before,
        "first_after": first_after,
        "first_gain": first_after - first_before,
        "limit": limit,
        "us": microseconds,
    }


def saved(keyboard: Keyboard, first: str, typed: str) -> tuple[float, float, float]:
    """Shares of keystrokes saved after reading a text, and microseconds of each key.

    Returns:
        The share over all that is typed, that over its first 2,000 characters, the time.
    """
    read, suggest = keyboard
    read(first)
    cut = typed.find(" ", FIRST) + 1 or len(typed)
    begun = time.thread_time()
    early = EXAMPLE["type_text"](typed[:cut], read, suggest)
    keys = early + EXAMPLE["type_text"](typed[cut:], read, suggest)
    microseconds = (time.thread_time() - begun) * 1e6 / keys
    return 1 - keys / len(typed), 1 - early / cut, microseconds


def rillet_keyboard(bundle: str) -> Keyboard:
    keyboard = EXAMPLE["Keyboard"](rillet.runtime.load(bundle).session())
    return keyboard.read, keyboard.suggest


def ngrams(corpus: str) -> Callable[[], Keyboard]:
    """What makes n-gram keyboards, all as the corpus taught one of them."""
    taught = WordKeyboard(corpus)

    def make() -> Keyboard:
        keyboard = copy.deepcopy(taught)
        return keyboard.read, keyboard.suggest

    return make


def knows_all(text: str) -> Keyboard:
    """A keyboard that shows the right word at once."""
    place = 0

    def read(typed: str) -> None:
        nonlocal place
        place += len(typed)

    return read, lambda: [EXAMPLE["letters"](text[place : place + 100])]


if __name__ == "__main__":
    main()

"""Find the odd lines of a log: those that a stream does not expect after the lines before.

python examples/anomaly_score.py models/shakespeare-nano service.log --top 5 --mask-digits

The score of a line is its surprise in bits per character, minus the median of the lines just before
it; --window 0 leaves the median out. --places 2 takes the two least expected characters of a line,
which finds a wrong word in a long one; --mask-digits reads a 0 for each number, as most are odd.
The stream's memory learns the log while it reads. A model of similar logs, trained without their
numbers (sed 's/[0-9][0-9]*/0/g'), does best with --mask-digits --window 0 --learn none.
"""

from __future__ import annotations

import math
import re
import statistics
import sys
import warnings
from argparse import ArgumentParser, RawTextHelpFormatter
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

import rillet.runtime
from rillet.runtime import Model, RilletError, UnknownCharacterWarning


class Scored(NamedTuple):
    """A line of the log, and how odd it is."""

    number: int
    bits: float
    score: float
    line: str


def scores(
    model: Model,
    lines: Iterable[str],
    window: int,
    places: int | None = None,
    mask_digits: bool = False,
    learn: Literal["read", "none"] = "read",
) -> Iterator[Scored]:
    """Score each line of a log after the first ``window`` lines.

    ``places`` counts the least expected characters that make a line's surprise; all by default.
    """
    session = model.session(learn)
    session.feed("\n")
    recent: deque[float] = deque(maxlen=window)
    for number, line in enumerate(lines, start=1):
        text = line.rstrip("\n") + "\n"
        if mask_digits:
            text = re.sub(r"\d+", "0", text)
        score = session.score(text, per_token=True)
        bits = score.bits_per_char
        if places is not None and score.token_logprobs is not None:
            bits = -float(np.sort(score.token_logprobs)[:places].mean()) / math.log(2)
        if len(recent) == window:
            usual = statistics.median(recent) if recent else 0.0
            yield Scored(number, bits, bits - usual, line.rstrip("\n"))
        recent.append(bits)
        session.feed(text)


def main() -> None:
    """Score a log, and print its oddest lines."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawTextHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("log", nargs="?", type=Path, help="a file; standard input when absent")
    parser.add_argument("--top", type=int, default=10, help="lines to show (10)")
    parser.add_argument("--window", type=int, default=20, help="lines to compare with (20)")
    parser.add_argument("--places", type=int, help="least expected characters to score (all)")
    parser.add_argument("--mask-digits", action="store_true", help="read each number as 0")
    parser.add_argument("--learn", choices=("read", "none"), default="read")
    options = parser.parse_args()

    model = rillet.runtime.load(options.bundle)
    # The shipped model knows no digits; characters that it does not know are skipped.
    warnings.simplefilter("ignore", UnknownCharacterWarning)
    source = sys.stdin if options.log is None else options.log.open(encoding="utf-8")
    how = options.window, options.places, options.mask_digits, options.learn
    with source:
        ranked = sorted(scores(model, source, *how), key=lambda line: -line.score)
    for line in ranked[: options.top]:
        print(f"{line.score:+.2f}\t{line.bits:.2f}\t{line.number}\t{line.line}")


if __name__ == "__main__":
    try:
        main()
    except (OSError, RilletError) as error:
        sys.exit(f"Error: {error}")

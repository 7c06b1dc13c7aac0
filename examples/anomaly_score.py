"""Find the odd lines of a log: those that a stream does not expect after the lines before.

python examples/anomaly_score.py models/shakespeare-nano service.log --top 5 --mask-digits

The score of a line is its surprise in bits per character, minus the median of the lines just before
it; --window 0 leaves the median out. With --places 2, the two least expected characters of a line
make its surprise: that finds a wrong word in a long line. Nobody expects most numbers: with
--mask-digits, the stream reads a 0 for each. Nothing is trained: the stream's memory learns the log
while it reads. A model trained on similar logs (examples/train_on_notes.py) knows them already.
It does best with --mask-digits --window 0 --learn none: then a fault that recurs stays odd. Mask
what it is trained on, too:

sed 's/[0-9][0-9]*/0/g' older.log > masked.txt
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

    Args:
        model: The model.
        lines: The log.
        window: Lines before it that a line is compared with; 0 for none.
        places: Least expected characters of a line that make its surprise; all by default.
        mask_digits: Whether the stream reads a 0 for each number.
        learn: Whether the memory learns the log: ``"read"``, or ``"none"``.
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
    parser.add_argument(
        "--window", type=int, default=20, help="lines to compare with (20; 0: none)"
    )
    parser.add_argument("--places", type=int, help="least expected characters to score (all)")
    parser.add_argument("--mask-digits", action="store_true", help="read each number as 0")
    parser.add_argument("--learn", choices=("read", "none"), default="read")
    options = parser.parse_args()

    model = rillet.runtime.load(options.bundle)
    # The shipped model knows no digits; characters that it does not know are skipped.
    warnings.simplefilter("ignore", UnknownCharacterWarning)
    source = sys.stdin if options.log is None else options.log.open(encoding="utf-8")
    with source:
        ranked = sorted(
            scores(
                model, source, options.window, options.places, options.mask_digits, options.learn
            ),
            key=lambda line: -line.score,
        )
    for line in ranked[: options.top]:
        print(f"{line.score:+.2f}\t{line.bits:.2f}\t{line.number}\t{line.line}")


if __name__ == "__main__":
    try:
        main()
    except (OSError, RilletError) as error:
        sys.exit(f"Error: {error}")

"""How well a stream finds odd lines in a log: the average precision of examples/anomaly_score.py.

    python benchmarks/anomaly.py LOG BUNDLE... [--labels FILE] [--lines N] [--json FILE]

Ranks all lines by their scores, as the example does, with each bundle, and with what is commonly
used instead (lib/log_baselines.py; pip install '.[bench]'). A bundle is scored by whole lines and
by the two least expected characters of each, as they are and with a 0 for each number
(`--mask-digits`), learning from them and not (`--learn none`), compared with the lines before and
not (`--window 0`).

The odd lines are those whose numbers FILE holds, one a line, as benchmarks/postgres_faults.py
writes them. Without FILE, they are made: every 25th line of the log is damaged, in one of four ways
in turn: two words change places, a letter becomes another, a word is one of a distant line, or the
end is missing.
"""

from __future__ import annotations

import argparse
import runpy
import warnings
from pathlib import Path
from typing import Any

import numpy as np

import rillet.runtime
from lib.log_baselines import BASELINES
from lib.results import write_results
from rillet.runtime import UnknownCharacterWarning

EXAMPLE = Path(__file__).parents[1] / "examples" / "anomaly_score.py"
EVERY, WINDOW = 25, 20

WAYS: dict[str, dict[str, Any]] = {
    "whole lines": {},
    "two places": {"places": 2},
    "masked": {"mask_digits": True},
    "masked, two places": {"mask_digits": True, "places": 2},
    "masked, not learning": {"mask_digits": True, "learn": "none"},
    "masked, not learning, two places": {"mask_digits": True, "learn": "none", "places": 2},
}
"""How lines are scored, each compared with the lines before and not."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("log", type=Path)
    parser.add_argument("bundles", nargs="+")
    parser.add_argument("--labels", type=Path, help="numbers of the lines that are odd")
    parser.add_argument("--lines", type=int, default=4_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", UnknownCharacterWarning)
    lines = arguments.log.read_text(encoding="utf-8").splitlines()[: arguments.lines]
    if arguments.labels is None:
        odd = damage(lines)
    else:
        odd = {int(number) for number in arguments.labels.read_text().split()}
    odd &= set(range(WINDOW + 1, len(lines) + 1))
    print(f"{len(lines)} lines, {len(odd)} odd; average precision")
    figures: dict[str, float] = {}

    def rank(name: str, by_line: dict[int, float]) -> None:
        ranked = sorted(by_line, key=lambda number: -by_line[number])
        figures[name] = average_precision([number in odd for number in ranked])
        print(f"{figures[name]:.3f}  {name}", flush=True)

    for name, score in BASELINES.items():
        # The first lines are not ranked, as with the bundles.
        rank(name, dict(list(enumerate(score(lines), 1))[WINDOW:]))
    scores = runpy.run_path(str(EXAMPLE))["scores"]
    for bundle in arguments.bundles:
        model = rillet.runtime.load(bundle)
        for how, options in WAYS.items():
            scored = list(scores(model, lines, WINDOW, **options))
            rank(f"{bundle}, {how}", {line.number: line.score for line in scored})
            rank(f"{bundle}, {how}, window 0", {line.number: line.bits for line in scored})
    write_results(arguments.json, figures)


def damage(lines: list[str]) -> set[int]:
    """Damage some lines, in place; return their numbers, counted from 1."""
    draw = np.random.default_rng(0)
    numbers = set(range(2 * WINDOW, len(lines) + 1, EVERY))
    for turn, number in enumerate(sorted(numbers)):
        words = lines[number - 1].split(" ")
        first, second = draw.permutation(len(words))[:2]
        distant = lines[draw.integers(len(lines))].split(" ")
        if turn % 4 == 0:
            words[first], words[second] = words[second], words[first]
        elif turn % 4 == 1:
            word = words[first] or "-"
            place = int(draw.integers(len(word)))
            words[first] = word[:place] + "aeiou"[draw.integers(5)] + word[place + 1 :]
        elif turn % 4 == 2:
            words[first] = distant[min(second, len(distant) - 1)]
        else:
            words = words[: max(1, len(words) // 2)]
        lines[number - 1] = " ".join(words)
    return numbers


def average_precision(hits: list[bool]) -> float:
    """Mean, over the odd lines, of the share of odd lines among all that rank as high."""
    found, total = 0, 0.0
    for rank, hit in enumerate(hits, start=1):
        found += hit
        total += found / rank if hit else 0.0
    return total / max(1, found)


if __name__ == "__main__":
    main()

"""How well does a bundle write, and with which sampling? Measured against text that people wrote.

    python benchmarks/prose.py BUNDLE... --corpus TRAINING --text HELDOUT [--json FILE]
        [--beside CHECKPOINT --networks lstm,gru [--validation FILE] [--runs build/converged]]

Writes texts with each bundle at several settings and measures, as lib/prose_measures.py defines
them: the share of words that the training text has, of sentences that link-parser parses (Debian's
package link-grammar), of paragraphs that close their quotation marks, of distinct word trigrams,
and of repeated pieces of 20 characters. The same measures of the held-out text are what to aim at:
the setting that comes closest in all of them is recommended, as options of `rillet export`.

``--networks`` adds baselines of ``converged.py`` with our memory on top, trained beside a
checkpoint of ours; their runs must still be there.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import rillet.runtime
from lib.arguments import text_parser
from lib.converged_results import results_file
from lib.prose_measures import measure, words_of
from lib.results import write_results
from rillet.runtime import Model, UnknownCharacterWarning

SETTINGS: tuple[dict[str, float], ...] = tuple(
    {"temperature": temperature, **filters}
    for temperature in (0.5, 0.8)
    for filters in ({}, {"top_p": 0.95}, {"top_p": 0.9}, {"min_p": 0.05}, {"min_p": 0.1})
)

RESULTS = Path(__file__).parent / "results"

UNFILTERED = {"top_p": 1.0, "min_p": 0.0}
"""What a setting leaves out, whatever the bundle's defaults are."""

Writer = Callable[[dict[str, float], int, int], list[str]]
"""Texts with a setting: how many, and how long."""

COLUMNS = ("words", "sentences", "quotes", "trigrams", "repeated", "distance")


def main() -> None:
    parser = text_parser(__doc__)
    parser.add_argument("--texts", type=int, default=10, help="texts for each setting (10)")
    parser.add_argument("--length", type=int, default=2_000, help="characters of a text (2,000)")
    parser.add_argument("--beside", type=Path, metavar="CHECKPOINT")
    parser.add_argument("--networks", default="", metavar="NAMES")
    parser.add_argument("--validation", type=Path, metavar="FILE")
    parser.add_argument("--runs", type=Path, default=Path("build/converged"))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", UnknownCharacterWarning)
    vocabulary = set(words_of(arguments.corpus.read_text(encoding="utf-8")))
    held_out = arguments.text.read_text(encoding="utf-8")
    real = measure(pieces(held_out, arguments.texts, arguments.length), vocabulary)
    print(" " * 46 + "  ".join(COLUMNS))
    show("held-out text", real)
    figures: dict[str, Any] = {"held-out text": real}
    for name, write in writers(arguments):
        measured: list[dict[str, Any]] = []
        for setting in SETTINGS:
            texts = write(setting, arguments.texts, arguments.length)
            values = measure(texts, vocabulary)
            measured.append({"setting": setting, **values, "distance": distance(values, real)})
            show(f"{Path(name).name} {options(setting)}", measured[-1])
        best = min(measured, key=lambda values: values["distance"])
        figures[name] = {"measured": measured, "recommended": best["setting"]}
        print(f"Closest to the held-out text: {options(best['setting'])}\n", flush=True)
    write_results(arguments.json, figures)


def writers(arguments: argparse.Namespace) -> Iterator[tuple[str, Writer]]:
    """What writes: the bundles, and the baselines beside a checkpoint."""
    for bundle in arguments.bundles:
        yield bundle, partial(write, rillet.runtime.load(bundle))
    if not arguments.networks:
        return
    if arguments.beside is None:
        raise SystemExit("--networks stand beside a checkpoint of ours: give --beside")
    # Not at the top: bundles need no torch.
    from lib.baseline_writer import converged_baseline, write_texts

    for name in arguments.networks.split(","):
        network = converged_baseline(
            name,
            arguments.beside,
            (arguments.corpus, arguments.text, arguments.validation),
            arguments.runs,
            results_file(RESULTS, arguments.beside.name),
            print,
        )
        yield f"{name} beside {arguments.beside.name}", partial(write_texts, *network)


def pieces(text: str, count: int, length: int) -> list[str]:
    """Pieces from all over a text, each from the start of a paragraph."""
    starts = np.linspace(0, len(text) - 2 * length, count).astype(int).tolist()
    starts = [text.find("\n\n", start) + 2 for start in starts]
    return [text[start : start + length] for start in starts]


def write(model: Model, setting: dict[str, Any], count: int, length: int) -> list[str]:
    """Texts of one length that a model writes after a line break, with seeds 0, 1, 2 and so on."""
    texts = []
    for seed in range(count):
        text = ""
        for piece in model.stream("\n", seed=seed, max_new_tokens=length, **UNFILTERED | setting):
            text += piece
            if len(text) >= length:
                break
        texts.append(text[:length])
    return texts


def distance(values: dict[str, Any], real: dict[str, float | None]) -> float:
    """Mean difference from the real text, over the measures that both have."""
    pairs = [(values[name], real[name]) for name in real]
    return float(np.mean([abs(a - b) for a, b in pairs if a is not None and b is not None]))


def options(setting: dict[str, float]) -> str:
    """A setting as options of the command line."""
    return " ".join(f"--{name.replace('_', '-')} {value:g}" for name, value in setting.items())


def show(name: str, values: dict[str, Any]) -> None:
    line = f"{name:44}"
    for column in COLUMNS:
        value = values.get(column)
        line += f"{'-' if value is None else format(value, '.3f'):>{len(column) + 2}}"
    print(line, flush=True)


if __name__ == "__main__":
    main()

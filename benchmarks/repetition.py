"""How much a stream repeats itself, depending on what its memory learns.

    python benchmarks/repetition.py BUNDLE [--tokens N] [--json FILE]

Generates with ``learn="read"`` (the default), ``"all"`` and ``"none"``, three seeds each, and
reports the share of 20-character pieces that occur earlier in the same text.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import rillet.runtime
from lib.prose_measures import repeated_share
from lib.results import write_results
from rillet.runtime import Model
from rillet.runtime.streams.stream import LearnMode

MODES: tuple[LearnMode, ...] = ("read", "all", "none")
PROMPT = "ROMEO:\nWhat light is this?\n\nJULIET:\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--tokens", type=int, default=4_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    model = rillet.runtime.load(arguments.bundle)
    figures = {}
    print(f"{'learn':6} {'temperature':>11}  repeated")
    for temperature in (0.8, 0.5):
        for learn in MODES:
            rates = [_rate(model, arguments.tokens, temperature, learn, seed) for seed in range(3)]
            figures[f"{learn} at {temperature}"] = rates
            shown = ", ".join(f"{rate:.1%}" for rate in rates)
            print(f"{learn:6} {temperature:11}  {sum(rates) / 3:.1%} ({shown})")
    write_results(arguments.json, figures)


def _rate(model: Model, tokens: int, temperature: float, learn: LearnMode, seed: int) -> float:
    return repeated_share(
        model.generate(
            PROMPT, max_new_tokens=tokens, temperature=temperature, seed=seed, learn=learn
        )
    )


if __name__ == "__main__":
    main()

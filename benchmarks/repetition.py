"""How much a stream repeats itself, by what its memory learns from.

    python benchmarks/repetition.py BUNDLE [--tokens N] [--json FILE]

Generates with ``learn="read"`` (the default), ``"all"`` and ``"none"``, several seeds each, and
counts the share of 20-character pieces that stand earlier in the same text.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import machine
import rillet.runtime

PIECE = 20
PROMPT = "ROMEO:\nWhat light is this?\n\nJULIET:\n"


def repeated(text: str) -> float:
    """Share of pieces that were written before."""
    seen: set[str] = set()
    again = 0
    for start in range(len(text) - PIECE):
        piece = text[start : start + PIECE]
        again += piece in seen
        seen.add(piece)
    return again / max(1, len(text) - PIECE)


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
        for learn in ("read", "all", "none"):
            rates = [
                repeated(
                    model.generate(
                        PROMPT, max_new_tokens=arguments.tokens, temperature=temperature,
                        seed=seed, learn=learn,
                    )
                )
                for seed in range(3)
            ]  # fmt: skip
            figures[f"{learn} at {temperature}"] = rates
            shown = ", ".join(f"{rate:.1%}" for rate in rates)
            print(f"{learn:6} {temperature:11}  {sum(rates) / 3:.1%} ({shown})")
    machine.write(arguments.json, figures)


if __name__ == "__main__":
    main()

"""Bundles on text that no model has seen: loss, bytes and microseconds, beside PPMd and zpaq.

    python benchmarks/family.py BUNDLE... --corpus TRAINING --text HELDOUT [--json FILE]

Losses are nats per character of the held-out text, read as one stream: by the network alone, with
the memory from zeros, and with the memory as the bundle was taught. PPMd and zpaq (Debian's package
zpaq) are given the training text; what they pay for the held-out text is the size of both less that
of the first (:mod:`lib.compressors`): if zpaq would change its model in between, it is given the
end of the training text only. Microseconds are the median of a step, and that over the characters
of a token. Needs `pip install '.[bench]'`.
"""

from __future__ import annotations

import math
import time
from functools import partial
from pathlib import Path
from typing import Any

import rillet.runtime
from lib.arguments import text_parser
from lib.compressors import compressors
from lib.results import write_results
from rillet.runtime.bench import measure_bundle

COLUMNS = {
    "alone": "network alone",
    "zeros": "from zeros",
    "taught": "taught",
    "bundle_mb": "bundle, MB",
    "state_mb": "state, MB",
    "step_us": "µs a token",
    "character_us": "µs a character",
}


def main() -> None:
    parser = text_parser(__doc__)
    arguments = parser.parse_args()
    before, text = arguments.corpus.read_bytes(), arguments.text.read_bytes()
    characters = len(text.decode("utf-8"))
    print("| | " + " | ".join(COLUMNS.values()) + " |")
    print("| --- " * (len(COLUMNS) + 1) + "|")
    figures: dict[str, dict[str, Any]] = {}

    def report(name: str, row: dict[str, Any]) -> None:
        figures[name] = row
        cells = (f"{row[key]:.4g}" if key in row else "" for key in COLUMNS)
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)

    for bundle in arguments.bundles:
        report(Path(bundle).name, bundle_figures(bundle, arguments.text))
    for name, (pack, given) in compressors(before, text).items():
        begun = time.monotonic()
        bits = 8 * (pack(given + text) - pack(given))
        seconds = time.monotonic() - begun
        loss = bits * math.log(2) / characters
        report(name, {"taught": loss, "seconds": seconds, "given_bytes": len(given)})
    write_results(arguments.json, figures)


def bundle_figures(bundle: str, text: Path) -> dict[str, Any]:
    """The figures of a bundle."""
    model = rillet.runtime.load(bundle)
    row: dict[str, Any] = {}
    characters_per_token = 1.0
    sessions = {
        "alone": model.session(memory=False, taught=False),
        "zeros": model.session(taught=False),
        "taught": model.session(taught=True),
    }
    for key, session in sessions.items():
        if key == "taught" and not session.taught:
            continue
        with text.open(encoding="utf-8") as file:
            score = session.score(iter(partial(file.read, 1 << 16), ""))
        # What has no token is charged as well: these figures are of the whole text.
        row[key] = score.bits_per_char * math.log(2)
        characters_per_token = score.characters / score.tokens
    speed = measure_bundle(Path(bundle))
    size = sum(file.stat().st_size for file in Path(bundle).iterdir())
    return {
        **row,
        "bundle_mb": size / 1e6,
        "state_mb": speed["state_kb"] / 1e3,
        "step_us": speed["p50_us"],
        "character_us": speed["p50_us"] / characters_per_token,
        "characters_per_token": characters_per_token,
        "provider": speed["provider"],
    }


if __name__ == "__main__":
    main()

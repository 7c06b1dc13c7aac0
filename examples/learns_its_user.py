"""A device that learns its user by reading: how much does the first half of a text help?

python examples/learns_its_user.py models/shakespeare-nano my-notes.txt

The script scores the second half with a stream that has read nothing, with one that has read the
first half, and with one that has read it with its memory switched off. No weight changes. The
memory holds the last 1,024 characters, so a text of a page or two shows the effect best.
"""

from __future__ import annotations

import json
import sys
import warnings
from argparse import ArgumentParser, RawTextHelpFormatter
from pathlib import Path

import rillet.runtime
from rillet.runtime import Model, RilletError, UnknownCharacterWarning


def compare(model: Model, text: str) -> dict[str, float]:
    """Bits per character of the second half of a text, under three conditions."""
    # Split at a line, so that no stream has to predict the rest of a word.
    middle = text.find("\n", len(text) // 2) + 1 or len(text) // 2
    first, second = text[:middle], text[middle:]

    def score(read: str, memory: bool) -> float:
        with model.session(memory=memory) as session:
            session.feed(read)
            return session.score(second).bits_per_char

    return {
        "before": score("\n", memory=True),
        "after": score(first, memory=True),
        "after, memory off": score(first, memory=False),
    }


def main() -> None:
    """Score a text, and print the figures."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawTextHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("text", type=Path, help="a text by the user, in UTF-8")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args()

    warnings.simplefilter("ignore", UnknownCharacterWarning)
    model = rillet.runtime.load(options.bundle)
    figures = compare(model, options.text.read_text(encoding="utf-8"))
    if options.json:
        print(json.dumps(figures))
        return
    print("bits per character of the second half")
    for condition, bits in figures.items():
        name = condition.replace("before", "before reading").replace("after", "after reading")
        print(f"  {name:32} {bits:.3f}")


if __name__ == "__main__":
    try:
        main()
    except (OSError, RilletError) as error:
        sys.exit(f"Error: {error}")

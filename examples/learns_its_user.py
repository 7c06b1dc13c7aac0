"""A device that learns its user by reading: how well is a text predicted, knowing its first half?

python examples/learns_its_user.py models/shakespeare-nano my-notes.txt

The second half is scored by a stream that has read nothing, by one that has read the first half,
and by one that has read it with its memory switched off. Nothing is trained, no weight changes. The
memory holds what was read last (1,024 characters here), so a text of a page or two shows it best.
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
    """Bits for each character of the second half of a text, in three circumstances."""
    # The halves part at a line, so that neither stream is asked for the rest of a word.
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
    """Score a text, and say what reading was worth."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawTextHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("text", type=Path, help="a text of the user's, in UTF-8")
    parser.add_argument("--json", action="store_true", help="write the figures as JSON")
    options = parser.parse_args()

    warnings.simplefilter("ignore", UnknownCharacterWarning)
    model = rillet.runtime.load(options.bundle)
    found = compare(model, options.text.read_text(encoding="utf-8"))
    if options.json:
        print(json.dumps(found))
        return
    print("bits for each character of the second half")
    for circumstance, bits in found.items():
        name = circumstance.replace("before", "before reading").replace("after", "after reading")
        print(f"  {name:32} {bits:.3f}")


if __name__ == "__main__":
    try:
        main()
    except RilletError as error:
        sys.exit(f"Error: {error}")

"""Write the table of letters, numbers and white space that the C tokenizer splits words with.

    python scripts/unicode_classes.py > native/src/unicode_classes.h

The classes are asked of the library ``tokenizers``, so that C splits a text exactly as it does.
"""

from __future__ import annotations

import sys
from itertools import groupby

from tokenizers import pre_tokenizers

OTHER, LETTER, NUMBER, SPACE = range(4)
"""Classes, numbered as ``native/src/words.h`` does."""

_WIDTH = 9


def main() -> None:
    """Print the header."""
    runs = [(start, kind) for kind, start in _runs()]
    print("/* Where runs of characters of one class begin: 4 * first character + class.")
    print(" * Written by scripts/unicode_classes.py. */")
    print("static const uint32_t class_runs[] = {")
    for at in range(0, len(runs), _WIDTH):
        print("    " + " ".join(f"{4 * start + kind}," for start, kind in runs[at : at + _WIDTH]))
    print("};")


def character_class(character: str) -> int:
    """The class that the pattern of byte-level pre-tokenizers puts a character in."""
    for companion, kind in (("a", LETTER), ("1", NUMBER), ("!", OTHER)):
        if len(_SPLIT.pre_tokenize_str(companion + character)) == 1:
            return kind
    return SPACE


def _runs() -> list[tuple[int, int]]:
    """Class and first character of each run."""
    every = (
        (OTHER if 0xD800 <= number <= 0xDFFF else character_class(chr(number)), number)
        for number in range(sys.maxunicode + 1)
    )
    return [(kind, next(run)[1]) for kind, run in groupby(every, lambda entry: entry[0])]


_SPLIT = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)

if __name__ == "__main__":
    main()

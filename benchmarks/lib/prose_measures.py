"""How far a text reads like prose: words, sentences, quotation marks, repetition."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from statistics import mean

__all__ = ["measure", "repeated_share", "sentences_of", "words_of"]

PIECE = 20
"""Characters of a piece that should not occur twice in one text."""

SENTENCE = range(3, 16)
"""Words of the sentences that are parsed: the parser takes seconds for each longer one."""

_WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*")
_END = re.compile(r"(?<=[.!?])[\"'\u201d\u2019)]*\s+")


def words_of(text: str) -> list[str]:
    """The words of a text, lowercase, without digits."""
    return [word.lower() for word in _WORD.findall(text)]


def measure(texts: Sequence[str], vocabulary: set[str]) -> dict[str, float | None]:
    """Measure texts of one source, all of one length.

    A text may be cut off anywhere: its last word is left out of the words, and its last paragraph
    of the sentences and quotation marks.

    Args:
        texts: The texts.
        vocabulary: Words that count as real, lowercase.

    Returns:
        ``words``: share of the words that are real. ``sentences``: share of the sentences that
        link-parser parses without leaving a word out, or ``None`` if it is not installed.
        ``quotes``: share of the paragraphs with quotation marks that close all they open; ``None``
        if there are none. ``trigrams``: share of the word trigrams that are distinct within their
        text. ``repeated``: share of the pieces of 20 characters that stood in their text before.
    """
    words = [words_of(text)[:-1] for text in texts]
    known = [word in vocabulary for some in words for word in some]
    paragraphs = [one for text in texts for one in re.split(r"\n\s*\n", text)[:-1]]
    quoted = [one.count('"') % 2 == 0 for one in paragraphs if '"' in one]
    return {
        "words": mean(known),
        "sentences": _parsed([one for each in paragraphs for one in sentences_of(each)]),
        "quotes": mean(quoted) if quoted else None,
        "trigrams": mean(_distinct(zip(some, some[1:], some[2:], strict=False)) for some in words),
        "repeated": mean(map(repeated_share, texts)),
    }


def sentences_of(paragraph: str) -> list[str]:
    """The sentences of a paragraph that a parser should manage, without quotation marks."""
    found = [
        re.sub(r'["\u201c\u201d_]', "", one) for one in _END.split(" ".join(paragraph.split()))
    ]
    return [one.strip() for one in found if len(words_of(one)) in SENTENCE]


def _parsed(sentences: Sequence[str]) -> float | None:
    program = shutil.which("link-parser")
    if program is None or not sentences:
        return None
    # A line that begins with one of these is a command or a comment to the parser.
    lines = [re.sub(r"^[!%*]+", "", sentence) for sentence in sentences]
    # No time limit that a busy machine would reach: the figures must not depend on it.
    result = subprocess.run(
        [program, "en", "-batch", "-verbosity=1", "-timeout=600"],
        input="\n".join(lines) + "\n",
        capture_output=True,
        text=True,
        check=True,
    )
    failed = re.search(r"^(\d+) errors?\.", result.stderr, re.MULTILINE)
    return 1 - int(failed[1]) / len(lines) if failed else 1.0


def repeated_share(text: str) -> float:
    """The share of pieces of 20 characters that occur earlier in the text."""
    return 1 - _distinct(text[start : start + PIECE] for start in range(len(text) - PIECE + 1))


def _distinct(items: Iterable[object]) -> float:
    listed = list(items)
    return len(set(listed)) / len(listed) if listed else 1.0

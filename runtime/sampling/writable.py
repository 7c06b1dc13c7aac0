"""Which texts a model can write: what its tokens spell, without bad words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..tokenizer import Tokenizer

__all__ = ["Limits", "Writable", "alive_places", "has_bad_word"]

_SURROGATES = range(0xD800, 0xE000)

_LENGTHS = ((0x80, 0x800, 1, 0xC0), (0x800, 0x10000, 2, 0xE0), (0x10000, 0x110000, 3, 0xF0))
"""The first and last code points of two bytes and more, the bytes after the first, and its mark."""

_UTF8_BYTES = frozenset((*range(0xC0), *range(0xC2, 0xF5)))
"""Bytes that occur in UTF-8."""


@dataclass(frozen=True)
class Limits:
    """What restricts a text besides its pattern.

    Attributes:
        forbidden: Tokens that are never drawn.
        bad_words: Texts that are never written.
        before: The last bytes that the stream has read; a bad word may begin there.
    """

    forbidden: frozenset[int] = frozenset()
    bad_words: tuple[str, ...] = ()
    before: bytes = b""

    @property
    def also(self) -> str:
        """What else may be why nothing can be written, to end a sentence."""
        causes = [", or bad_words forbids them"] if self.bad_words else []
        causes += [", or logit_bias forbids their tokens"] if self.forbidden else []
        return "".join(causes)


class Writable:
    """The characters that a model can write one by one, and the tokens that consist of them.

    With these tokens, whatever was written, every text of these characters can follow.

    Args:
        tokenizer: The model's tokenizer.
        limits: The tokens that are never drawn.

    Attributes:
        tokens: Which tokens consist of such characters, ``[V]``.
        characters: The code points, sorted; ``None`` if they are all of Unicode.
    """

    def __init__(self, tokenizer: Tokenizer, limits: Limits) -> None:
        drawn = [
            b"" if number in limits.forbidden else token
            for number, token in enumerate(tokenizer.token_bytes)
        ]
        self.characters: npt.NDArray[np.int64] | None = None
        if tokenizer.is_byte_level:
            units = {token[0] for token in drawn if len(token) == 1}
            if not units.issuperset(_UTF8_BYTES):
                self.characters = _characters_of(units)
            usable = [bool(token) and units.issuperset(token) for token in drawn]
        else:
            texts = [token.decode() for token in drawn]
            letters = {text for text in texts if len(text) == 1}
            self.characters = np.asarray(sorted(map(ord, letters)), np.int64)
            usable = [bool(text) and letters.issuperset(text) for text in texts]
        self.tokens = np.asarray(usable, np.bool_)

    @property
    def pattern(self) -> str:
        """A regular expression for any text of the characters."""
        if self.characters is None:
            return "(?s:.*)"
        if not self.characters.size:
            return "()"
        breaks = np.flatnonzero(np.diff(self.characters) != 1) + 1
        runs = np.split(self.characters, breaks)
        return "[" + "".join(f"\\x{{{run[0]:x}}}-\\x{{{run[-1]:x}}}" for run in runs) + "]*"


def has_bad_word(words: Iterable[bytes], before: bytes, text: bytes) -> bool:
    """Whether a text completes one of the words, which may begin before it."""
    return any(word in before[max(0, len(before) - len(word) + 1) :] + text for word in words)


def _characters_of(units: set[int]) -> npt.NDArray[np.int64]:
    """The code points whose bytes are all among the units."""
    known = np.zeros(256, np.bool_)
    known[list(units)] = True
    points = np.arange(0x110000)
    is_known = (points < _SURROGATES.start) | (points >= _SURROGATES.stop)
    is_known[:0x80] &= known[:0x80]
    for first, last, rests, mark in _LENGTHS:
        some = points[first:last]
        is_known[first:last] &= known[mark | some >> 6 * rests]
        for rest in range(rests):
            is_known[first:last] &= known[0x80 | some >> 6 * rest & 0x3F]
    return points[is_known]


def alive_places(text: bytes, tokens: Sequence[bytes]) -> frozenset[int]:
    """The places of a text from which some of the tokens spell the rest of it."""
    known, longest = set(tokens) - {b""}, max(map(len, tokens), default=0)
    alive = {len(text)}
    for place in range(len(text) - 1, -1, -1):
        ends = range(place + 1, min(len(text), place + longest) + 1)
        if any(end in alive and text[place:end] in known for end in ends):
            alive.add(place)
    return frozenset(alive)

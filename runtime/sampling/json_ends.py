"""Looking for the end of a JSON document."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..tokenizer import Tokenizer
from .lookahead import Path, allowed
from .writable import Limits, Writable, has_bad_word

__all__ = ["JsonEnds"]

_CLOSING = (b"}", b"]", b",")
"""What brings the end nearer wherever it may be written, best first."""

_VALUES = (b"0123456789", b'"', b"[", b"n", b"tf", b"{")
"""What values begin with, by what they take at the least."""

_LETTERS = bytes(range(ord("0"), ord("9") + 1)) + bytes(range(ord("a"), ord("z") + 1))

_OFTEN = 0.75
"""How often a string goes on with a likely character, and else with a letter."""

_TRIES = 10
"""Paths to look for; the shortest is taken once each kind of value has gone first."""

_LENGTHS = (64, 1_000, 10_000)
"""Tokens of a path: longer ones are only looked for where there are no shorter, since a schema
that recurs has many that never end."""

_STEPS = 40_000
"""Steps of all tries together: a second."""

_OUTSIDE, _INSIDE, _ESCAPED = range(3)
"""Where a place is: outside a string, inside one, or after a backslash in one."""


class JsonEnds:
    """Finds short ends of a document: brackets are closed before anything else is written.

    Which kind of value is shortest, a schema does not say in advance, so each goes first once.

    Args:
        tokenizer: The model's tokenizer.
        writable: What may be written.
        limits: What may not.
        likely: Characters that strings are likely to need.
    """

    def __init__(
        self, tokenizer: Tokenizer, writable: Writable, limits: Limits, likely: str = ""
    ) -> None:
        self._bytes, self._before = tokenizer.token_bytes, limits.before
        self._words = [word.encode() for word in limits.bad_words]
        # Of longer tokens, paths would be shorter; but one by one, all that is writable can follow.
        self._units = {
            self._bytes[token]: token
            for token in np.flatnonzero(writable.tokens).tolist()
            if len(self._bytes[token] if tokenizer.is_byte_level else _text(self._bytes[token]))
            == 1
        }
        self._usable = np.zeros(writable.tokens.size, np.bool_)
        self._usable[list(self._units.values())] = True
        self._is_byte_level = tokenizer.is_byte_level
        self._likely, self._letters = (np.zeros(self._usable.size, np.bool_) for _ in range(2))
        self._likely[self._tokens(likely.encode("ascii", "ignore"))] = True
        self._letters[self._tokens(_LETTERS)] = True
        self._steps = 0

    def find(self, matcher: Any, written: bytes, room: int | None = None) -> Path | None:
        """A path from where a matcher stands after some text; ``None`` if none is found.

        Args:
            matcher: The grammar of the document.
            written: The document so far.
            room: Tokens that the path may have.
        """
        self._steps = _STEPS
        for length in _LENGTHS:
            most = length if room is None else min(length, room)
            if (path := self._shortest(matcher, written, most)) is not None or most == room:
                return path
        return None

    def _shortest(self, matcher: Any, written: bytes, most: int) -> Path | None:
        """The shortest of several paths, none of them longer than so many tokens."""
        best: Path | None = None
        for number in range(_TRIES):
            if best is not None and (most < 1 or number >= len(_VALUES)):
                break
            ranks = self._ranks(number, random.Random(number))  # noqa: S311 - the same each time
            path = self._descend(matcher.deep_copy(), written, ranks, most)
            if path is not None:
                best, most = path, len(path) - 1
        return best

    def _descend(self, matcher: Any, written: bytes, ranks: Ranks, room: int) -> Path | None:
        """One path, along which no step is taken back."""
        path: list[int] = []
        text, place = written, _place_after(written)
        while not matcher.is_accepting():
            self._steps -= 1
            steps = self._forced(matcher) or self._chosen(matcher, ranks, place)
            if (
                not steps
                or self._steps < 0
                or len(path) + len(steps) > room
                or not matcher.consume_tokens(steps)
            ):
                return None
            added = b"".join(self._bytes[token] for token in steps)
            if self._words and has_bad_word(self._words, self._before, text + added):
                return None
            text, place = text + added, _place_after(added, place)
            path += steps
        return tuple(path)

    def _forced(self, matcher: Any) -> list[int]:
        """The tokens that must follow."""
        forced: bytes = matcher.compute_ff_bytes()
        if self._is_byte_level:
            units = [forced[place : place + 1] for place in range(len(forced))]
        else:
            units = [character.encode() for character in forced.decode(errors="ignore")]
        known = [self._units[unit] for unit in units if unit in self._units]
        return known if len(known) == len(units) else []

    def _chosen(self, matcher: Any, ranks: Ranks, place: int) -> list[int]:
        """A token that may follow."""
        follow = np.flatnonzero(allowed(matcher, self._usable))
        if not follow.size:
            return []
        if place != _INSIDE:
            ranked = ranks.outside[follow]
            follow = follow[ranked == ranked.min()]
        elif (quote := self._units.get(b'"')) in follow:
            return [int(quote or 0)]
        else:
            for likely in (self._likely, self._letters):
                some = follow[likely[follow]]
                if some.size and ranks.chance.random() < _OFTEN:
                    follow = some
                    break
        return [int(follow[ranks.chance.randrange(follow.size)])]

    def _ranks(self, number: int, chance: random.Random) -> Ranks:
        """What goes before what in one of the tries."""
        values = list(_VALUES)
        if number < len(values):
            values.insert(0, values.pop(number))
        else:
            chance.shuffle(values)
        groups = [*_CLOSING, *values]
        outside = np.full(self._usable.size, len(groups), np.int64)
        for rank, group in enumerate(groups):
            outside[self._tokens(group)] = rank
        return Ranks(outside, chance)

    def _tokens(self, characters: Iterable[int]) -> list[int]:
        """The tokens of some ASCII characters."""
        found = (self._units.get(bytes([byte])) for byte in characters)
        return [token for token in found if token is not None]


class Ranks(NamedTuple):
    """What goes before what outside strings, ``[V]``, and what decides between equals."""

    outside: npt.NDArray[np.int64]
    chance: random.Random


def _text(token: bytes) -> str:
    return token.decode(errors="replace")


def _place_after(text: bytes, place: int = _OUTSIDE) -> int:
    """Where a text leads that begins at a place."""
    for byte in text:
        if place == _ESCAPED:
            place = _INSIDE
        elif byte == ord("\\") and place == _INSIDE:
            place = _ESCAPED
        elif byte == ord('"'):
            place = _OUTSIDE if place == _INSIDE else _INSIDE
    return place

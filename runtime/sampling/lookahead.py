"""Looking for an end: whether what a grammar allows next can still become a whole text."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..tokenizer import Tokenizer
from .writable import Limits, Writable, has_bad_word

__all__ = ["Lookahead", "Path", "allowed"]

Path = tuple[int, ...]
"""Tokens that complete a text."""

_SUFFIXES = 16
"""Ends of a known path that are tried before a search."""

_PER_TOKEN = 300
"""States to look at for each token that a grammar allows next."""

_AT_FIRST = 20_000
"""States to look at for a first path."""

_LONGEST = 1_000
"""Tokens of a path that is found by wandering."""


class Lookahead:
    """Finds paths to an end of the text, with the tokens and words that may be written.

    A path that is found is real. A search that gives up may overlook one, and its token is then
    not written; the path that is known already always is, so that the text can be completed.

    Args:
        tokenizer: The model's tokenizer.
        writable: What may be written.
        limits: What may not.
        find: What finds a path from where a matcher stands, after some text, of so many tokens
            at most; a search through everything that may follow when absent.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        writable: Writable,
        limits: Limits,
        find: Callable[[Any, bytes, int | None], Path | None] | None = None,
    ) -> None:
        self._finder = find
        self._bytes, self._usable = tokenizer.token_bytes, writable.tokens
        self._words = [word.encode() for word in limits.bad_words]
        self._before = limits.before
        self._end = tokenizer.vocab_size

    def first(self, matcher: Any, written: bytes) -> Path | None:
        """A path from where a matcher stands; ``None`` if none is found."""
        if matcher.is_accepting():
            return ()
        if self._finder is not None:
            return self._finder(matcher, written, None)
        return self._find(matcher, written, (), _AT_FIRST)

    def after(
        self,
        token: int,
        matcher: Any,
        written: bytes,
        known: Path,
        fruitless: set[bytes],
        room: int | None = None,
    ) -> Path | None:
        """A path from where a token leads; ``None`` if none is found.

        Args:
            token: A token that the grammar allows.
            matcher: The grammar, before the token.
            written: The text before it.
            known: A path from before it.
            fruitless: What may follow where a search has found no end, from where the matcher
                stands. Where the same may follow, none is looked for again: a hundred letters that
                lead to the same dead end take one search. This one adds to it.
            room: Tokens that a path may have.
        """
        if known[:1] == (token,):
            return known[1:]
        if (end := self._known_end(matcher, written, token, known)) is not None:
            return end
        text = written + self._bytes[token]
        if has_bad_word(self._words, self._before, text):
            return None
        child = matcher.deep_copy()
        child.consume_token(token)
        mask = child.compute_bitmask()
        if mask in fruitless:
            return None
        if self._finder is not None:
            path = self._finder(child, text, room)
        else:
            path = self._find(child, text, known, _PER_TOKEN)
        if path is None:
            fruitless.add(mask)
        return path

    def _find(self, matcher: Any, written: bytes, known: Path, states: int) -> Path | None:
        search = _Search(self._steps, known, states)
        return search.nearby(matcher, written) or search.wander(matcher, written)

    def _steps(self, matcher: Any, written: bytes, known: Path) -> Iterator[_Step]:
        """What each token leads to, unless it completes a bad word."""
        for token in map(int, np.flatnonzero(allowed(matcher, self._usable))):
            text = written + self._bytes[token]
            if has_bad_word(self._words, self._before, text):
                continue
            end = self._known_end(matcher, written, token, known)
            child = matcher.deep_copy()
            child.consume_token(token)
            yield _Step(token, text, child, end)

    def _known_end(self, matcher: Any, written: bytes, token: int, known: Path) -> Path | None:
        """An end of a known path, or nothing, that completes the text after a token."""
        for place in (*range(min(len(known), _SUFFIXES)), len(known)):
            path = (token, *known[place:])
            if matcher.validate_tokens([*path, self._end]) <= len(path):
                continue
            text = written + b"".join(self._bytes[token] for token in path)
            if not has_bad_word(self._words, self._before, text):
                return known[place:]
        return None


class _Step(NamedTuple):
    """A token, the text and the grammar after it, and what completes the text, if that is known."""

    token: int
    text: bytes
    matcher: Any
    end: Path | None


class _Search:
    """One search for a path.

    Args:
        steps: What may follow.
        known: A path whose ends may fit.
        states: How many states to look at when wandering.
    """

    def __init__(
        self, steps: Callable[[Any, bytes, Path], Iterator[_Step]], known: Path, states: int
    ) -> None:
        self._steps, self._known, self._states = steps, known, states
        self._is_exhausted = False

    def nearby(self, matcher: Any, written: bytes) -> Path | None:
        """Try short paths first; of tokens after which the same may follow, one before others."""
        order, left = itertools.count(), _PER_TOKEN
        queue: list[tuple[int, int, Path, bytes, Any]] = [(0, next(order), (), written, matcher)]
        while queue:
            cost, _, path, text, state = heapq.heappop(queue)
            alike = Counter[bytes]()
            for step in self._steps(state, text, self._known):
                longer = (*path, step.token)
                if step.end is not None:
                    return longer + step.end
                mask = step.matcher.compute_bitmask()
                place = (cost + 1 + alike[mask], next(order))
                heapq.heappush(queue, (*place, longer, step.text, step.matcher))
                alike[mask] += 1
                left -= 1
            if left < 0:
                return None
        self._is_exhausted = True
        return None

    def wander(self, matcher: Any, written: bytes) -> Path | None:
        """Go at random, to a token that ends a string as often as to any that continues it."""
        left, chance = self._states, random.Random(0)  # noqa: S311 - the same each time
        while left > 0 and not self._is_exhausted:
            path: Path = ()
            text, state = written, matcher
            while len(path) < _LONGEST:
                groups: dict[bytes, _Step] = {}
                for step in self._steps(state, text, self._known):
                    if step.end is not None:
                        return (*path, step.token, *step.end)
                    groups.setdefault(step.matcher.compute_bitmask(), step)
                    left -= 1
                if not groups:
                    break
                step = chance.choice(list(groups.values()))
                path, text, state = (*path, step.token), step.text, step.matcher
            left -= 1
        return None


def allowed(matcher: Any, usable: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Which tokens may follow, ``[V]``."""
    bits = np.frombuffer(matcher.compute_bitmask(), np.uint8)
    mask = np.unpackbits(bits, bitorder="little")[: usable.size].astype(np.bool_)
    return np.asarray(mask & usable)

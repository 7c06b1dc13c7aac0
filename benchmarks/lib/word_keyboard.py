"""A keyboard that suggests words by n-grams and learns its user's: what phones have long had."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter, defaultdict

import numpy as np

from .arrays import Array
from .kneser_ney import KneserNey

__all__ = ["WordKeyboard"]

_TOKEN = re.compile(r"(?:[^\W\d_]|')+|\n+|[^\w\s]+|[\d_]+")
_END = re.compile(r'[.!?"\n]')
_WORD = re.compile(r"(?:[^\W\d_]|')+")
_FADE, _RATE = 0.99, 0.02
"""What a word of the cache keeps with each word after it; how fast the weights follow the user."""
_LARGE = 1e100
"""A word of the cache grows instead of the others shrinking, until it is this large."""


class WordKeyboard:
    """Suggests words by a mixture of three models, whose weights follow what the user types.

    The first is a Kneser-Ney trigram of the training text, over words and punctuation. The second
    is a Witten-Bell trigram of what the user has typed, the third a cache of his words that fades
    with time. The weights are those of online expectation maximisation. Words are counted without
    regard to case, and written as they are mostly written, with a capital where most words had one.

    Args:
        training: The training text.
    """

    def __init__(self, training: str) -> None:
        tokens = list(map(_plain, _TOKEN.findall(training)))
        self._forms: dict[str, Counter[str]] = defaultdict(Counter)
        self._capitals: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        self._words = sorted({token.lower() for token in tokens})
        self._number = {word: index for index, word in enumerate(self._words)}
        self._sorted = len(self._words)
        previous = "\n"
        for token in tokens:
            self._count_form(previous, token)
            previous = token
        numbers = np.asarray([self._number[token.lower()] for token in tokens], np.int64)
        self.trained = KneserNey(numbers, len(self._words))
        self._user: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
        self._cache: dict[int, float] = defaultdict(float)
        self._gain = 1.0
        self._weights = np.asarray([0.8, 0.1, 0.1])
        self._history, self._previous = (0, 0), "\n"
        self._pending = ""
        self._known: tuple[tuple[int, int], Array] | None = None

    def read(self, text: str) -> None:
        """Read what was typed; a word counts once it has ended."""
        self._pending += text
        while (match := _TOKEN.search(self._pending)) and match.end() < len(self._pending):
            self._learn(_plain(match[0]))
            self._pending = self._pending[match.end() :]

    def suggest(self) -> list[str]:
        """The rests of the three likeliest words that begin as typed."""
        begun = self._pending.strip(" ")
        prefix = begun if _WORD.fullmatch(begun) else ""
        history, previous = self._history, self._previous
        if begun and not prefix:  # punctuation that may go on, but not if a word is next
            history = (history[1], self._number.get(_plain(begun), len(self._words)))
            previous = _plain(begun)
        capital = prefix[:1].isupper() if prefix else self._begins(previous)
        found: list[str] = []
        for number in self._ranked(prefix.lower(), self._chances(history)):
            word = self._written(number, capital)
            if _WORD.fullmatch(word) and word.startswith(prefix) and word != prefix:
                found.append(word[len(prefix) :])
        return found[:3]

    def _ranked(self, prefix: str, chances: Array) -> list[int]:
        """The likeliest words with a prefix, more than are shown: some may not be written so."""
        start = bisect_left(self._words, prefix, 0, self._sorted)
        end = bisect_left(self._words, prefix + "\U0010ffff", start, self._sorted)
        new = [
            n for n in range(self._sorted, len(self._words)) if self._words[n].startswith(prefix)
        ]
        numbers = np.asarray([*range(start, end), *new], np.int64)
        ranked: list[int] = numbers[np.argsort(-chances[numbers], kind="stable")[:30]].tolist()
        return ranked

    def _written(self, number: int, capital: bool) -> str:
        form = self._forms[self._words[number]].most_common(1)[0][0]
        return form[:1].upper() + form[1:] if capital else form

    def _begins(self, previous: str) -> bool:
        """Whether most words have a capital after a token."""
        capitals, others = self._capitals[previous.lower()]
        return capitals > others

    def _count_form(self, previous: str, token: str) -> None:
        if _WORD.fullmatch(token):
            self._capitals[previous.lower()][0 if token[0].isupper() else 1] += 1
        # All words have a capital at the start of a sentence, which says little of them.
        weight = 1 if _END.search(previous) else 100
        self._forms[token.lower()][token] += weight

    def _chances(self, history: tuple[int, int]) -> Array:
        """The probability of each word, ``[words]``."""
        if self._known is None or self._known[0] != history:
            self._known = history, self._weights @ self._models(history)
        return self._known[1]

    def _models(self, history: tuple[int, int]) -> Array:
        """What each model says of each word, ``[3, words]``."""
        models = np.zeros((3, len(self._words)))
        trained, user, cache = models
        trained[: self._sorted] = self.trained.chances(*history)
        user += trained
        for length in range(3):
            counts = self._user.get(history[2 - length :])
            if counts:
                total, kinds = counts.total(), len(counts)
                user *= kinds / (total + kinds)
                user[list(counts)] += np.asarray(list(counts.values())) / (total + kinds)
        if self._cache:
            cache[list(self._cache)] = list(self._cache.values())
            cache /= cache.sum()
        return models

    def _learn(self, token: str) -> None:
        word = token.lower()
        if word in self._number:
            number = self._number[word]
            shares = self._weights * self._models(self._history)[:, number]
            self._weights += _RATE * (shares / shares.sum() - self._weights)
        else:
            number = self._number[word] = len(self._words)
            self._words.append(word)
        for length in range(3):
            self._user[self._history[2 - length :]][number] += 1
        self._gain /= _FADE
        self._cache[number] += self._gain
        if self._gain > _LARGE:
            self._cache = defaultdict(float, {n: v / _LARGE for n, v in self._cache.items()})
            self._gain /= _LARGE
        self._count_form(self._previous, token)
        self._history, self._previous, self._known = (self._history[1], number), token, None


def _plain(token: str) -> str:
    """A token as it is counted: empty lines make no difference."""
    return "\n" if token.startswith("\n") else token

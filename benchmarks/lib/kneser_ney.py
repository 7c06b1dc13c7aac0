"""A trigram model with interpolated Kneser-Ney smoothing (Chen and Goodman, 1998)."""

from __future__ import annotations

import numpy as np

from .arrays import Array, TokenArray

__all__ = ["KneserNey"]


class KneserNey:
    """Trigrams interpolated with bigrams, and those with words, by how many words each follows.

    Each order has one discount, ``n1 / (n1 + 2 n2)`` of its n-grams seen once and twice.

    Args:
        tokens: The text, ``[length]``.
        vocab: Number of tokens V; ``V ** 3`` must fit into 63 bits.
    """

    def __init__(self, tokens: TokenArray, vocab: int) -> None:
        pairs = tokens[:-1] * vocab + tokens[1:]
        trigrams, counts = np.unique(pairs[:-1] * vocab + tokens[2:], return_counts=True)
        # Below the trigrams, an n-gram counts once for each different token before it.
        bigrams, kinds = np.unique(trigrams % vocab**2, return_counts=True)
        self._levels = [_Level(bigrams, kinds, vocab), _Level(trigrams, counts, vocab)]
        self._vocab = vocab
        words = np.bincount(bigrams % vocab, minlength=vocab).astype(float)
        self._words = (words + 0.5) / (words.sum() + 0.5 * vocab)

    def chances(self, first: int, second: int) -> Array:
        """The probability of each token after two others, ``[V]``; unknown ones are skipped."""
        chances: Array = self._words
        if second >= self._vocab:
            return chances
        chances = self._levels[0].over(chances, second)
        if first < self._vocab:
            chances = self._levels[1].over(chances, first * self._vocab + second)
        return chances


class _Level:
    """The n-grams of one length with their counts, sorted."""

    def __init__(self, ngrams: Array, counts: Array, vocab: int) -> None:
        self._ngrams, self._vocab = ngrams, vocab
        once, twice = (counts == 1).sum(), (counts == 2).sum()
        self._discount = once / max(1, once + 2 * twice)
        self._counts = counts

    def over(self, below: Array, context: int) -> Array:
        """The probabilities after a context, given those of the order below."""
        start, end = np.searchsorted(
            self._ngrams, [context * self._vocab, (context + 1) * self._vocab]
        )
        if start == end:
            return below
        counts = self._counts[start:end]
        total = counts.sum()
        chances: Array = below * (self._discount * counts.size / total)
        chances[self._ngrams[start:end] % self._vocab] += (counts - self._discount) / total
        return chances

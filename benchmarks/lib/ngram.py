"""An interpolated n-gram model (Witten and Bell, 1991)."""

from __future__ import annotations

import numpy as np

from .arrays import TokenArray

__all__ = ["NGram"]


class NGram:
    """Counts of all orders up to n, each interpolated with the order below.

    ``p_n(x | h) = (count(h x) + t(h) p_{n-1}(x | h')) / (count(h) + t(h))``, where ``t(h)`` is
    the number of distinct tokens that followed ``h`` and ``h'`` is ``h`` without its oldest token.

    Args:
        tokens: The text to count, ``[length]``.
        vocab: Number of tokens V.
        order: Length n of the longest n-grams; ``V ** n`` must fit into 63 bits.

    Raises:
        ValueError: ``V ** n`` does not fit into 63 bits.
    """

    def __init__(self, tokens: TokenArray, vocab: int, order: int) -> None:
        if vocab**order >= 1 << 63:
            raise ValueError(f"{order}-grams of {vocab} tokens do not fit into 63 bits")
        self.vocab, self.order = vocab, order
        self._levels = []
        for length in range(1, order + 1):
            ngrams, counts = np.unique(_ngrams(tokens, vocab, length), return_counts=True)
            # The n-grams are sorted, so those with the same context are adjacent.
            contexts, starts, kinds = np.unique(
                ngrams // vocab, return_index=True, return_counts=True
            )
            self._levels.append((ngrams, counts, contexts, np.add.reduceat(counts, starts), kinds))

    @property
    def entries(self) -> int:
        """Number of distinct n-grams of all lengths."""
        return sum(len(level[0]) for level in self._levels)

    @property
    def bytes(self) -> int:
        """Bytes of the n-grams and their counts: 8 and 4 each."""
        return 12 * self.entries

    def loss(self, tokens: TokenArray) -> float:
        """The loss on a text in nats per token; every token but the first is predicted."""
        probabilities = np.full(len(tokens), 1 / self.vocab)
        for length, (ngrams, counts, contexts, totals, kinds) in enumerate(self._levels, 1):
            if len(tokens) < length:
                break
            queries = _ngrams(tokens, self.vocab, length)
            seen = _look_up(ngrams, counts, queries)
            total = _look_up(contexts, totals, queries // self.vocab)
            kind = _look_up(contexts, kinds, queries // self.vocab)
            # An unseen context says nothing: keep the lower order's probability.
            below = probabilities[length - 1 :]
            mixed = (seen + kind * below) / np.maximum(total + kind, 1)
            probabilities[length - 1 :] = np.where(total > 0, mixed, below)
        return float(-np.log(probabilities[1:]).mean())


def _ngrams(tokens: TokenArray, vocab: int, length: int) -> TokenArray:
    """Every n-gram of a length as one number, ``[len(tokens) - length + 1]``."""
    count = len(tokens) - length + 1
    ngrams = np.zeros(count, np.int64)
    for offset in range(length):
        ngrams = ngrams * vocab + tokens[offset : offset + count]
    return ngrams


def _look_up(keys: TokenArray, values: TokenArray, queries: TokenArray) -> TokenArray:
    """The value of each query, 0 where it is no key; the keys are sorted."""
    indices = np.minimum(np.searchsorted(keys, queries), len(keys) - 1)
    return np.where(keys[indices] == queries, values[indices], 0)

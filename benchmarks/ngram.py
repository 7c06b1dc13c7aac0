"""Counts of what followed the last n - 1 tokens, interpolated (Witten and Bell, 1991)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["NGram"]

_Tokens = npt.NDArray[np.int64]


class NGram:
    """Counts of all orders up to n; each order leans on the one below it.

    ``p_n(x | h) = (count(h x) + t(h) p_{n-1}(x | h')) / (count(h) + t(h))``, where ``t(h)`` is
    how many different tokens followed ``h`` and ``h'`` is ``h`` without its oldest token.

    Args:
        tokens: The text to count, ``[length]``.
        vocab: Number of tokens V.
        order: Longest run that is counted, n; ``V ** n`` must fit into 63 bits.
    """

    def __init__(self, tokens: _Tokens, vocab: int, order: int) -> None:
        if vocab**order >= 1 << 63:
            raise ValueError(f"runs of {order} of {vocab} tokens do not fit into 63 bits")
        self.vocab, self.order = vocab, order
        self._levels = []
        for length in range(1, order + 1):
            runs, counts = np.unique(_runs(tokens, vocab, length), return_counts=True)
            # Runs are sorted, so those with one context lie together.
            contexts, starts, kinds = np.unique(
                runs // vocab, return_index=True, return_counts=True
            )
            self._levels.append((runs, counts, contexts, np.add.reduceat(counts, starts), kinds))

    @property
    def entries(self) -> int:
        """How many different runs were counted, of all lengths."""
        return sum(len(level[0]) for level in self._levels)

    @property
    def bytes(self) -> int:
        """What the runs and their counts take, 8 bytes and 4 for each."""
        return 12 * self.entries

    def loss(self, tokens: _Tokens) -> float:
        """Nats per token; each but the first is predicted from those before it."""
        found = np.full(len(tokens), 1 / self.vocab)
        for length, (runs, counts, contexts, totals, kinds) in enumerate(self._levels, 1):
            if len(tokens) < length:
                break
            wanted = _runs(tokens, self.vocab, length)
            seen = _look_up(runs, counts, wanted)
            total = _look_up(contexts, totals, wanted // self.vocab)
            kind = _look_up(contexts, kinds, wanted // self.vocab)
            # An unseen context says nothing: the order below stands.
            below = found[length - 1 :]
            mixed = (seen + kind * below) / np.maximum(total + kind, 1)
            found[length - 1 :] = np.where(total > 0, mixed, below)
        return float(-np.log(found[1:]).mean())


def _runs(tokens: _Tokens, vocab: int, length: int) -> _Tokens:
    """Every run of so many tokens as one number, ``[len(tokens) - length + 1]``."""
    count = len(tokens) - length + 1
    found = np.zeros(count, np.int64)
    for place in range(length):
        found = found * vocab + tokens[place : place + count]
    return found


def _look_up(keys: _Tokens, values: _Tokens, wanted: _Tokens) -> _Tokens:
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[places] == wanted, values[places], 0)

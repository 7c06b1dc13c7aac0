"""The token streams that the parity gate reads."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...runtime.errors import CorpusError
from ...runtime.tokenizer import Tokenizer
from ...train.data.corpus import builtin_corpus

__all__ = ["REAL_TEXT", "real_tokens"]

REAL_TEXT = "real text"
"""Name of the real text in reports."""

_ENOUGH = 500
"""Tokens below which an encoded text is too short to repeat."""


def real_tokens(tokenizer: Tokenizer, count: int) -> npt.NDArray[np.int64]:
    """Encode Python's own reference texts, ``[1, count]``, repeated if they are too short.

    Characters that the tokenizer lacks are dropped. For an alphabet that shares almost nothing
    with English, the tokens are random, with repetitions.
    """
    try:
        tokens = tokenizer.encode(builtin_corpus()[: 4 * count])
    except CorpusError:
        tokens = []
    if len(tokens) < min(count, _ENOUGH):
        random = np.random.default_rng(2)
        phrase = random.integers(0, tokenizer.vocab_size, _ENOUGH)
        noise = random.integers(0, tokenizer.vocab_size, _ENOUGH)
        tokens = np.where(random.random(_ENOUGH) < 0.1, noise, phrase).tolist()
    repeats = -(-count // len(tokens))
    return np.asarray([(tokens * repeats)[:count]], np.int64)

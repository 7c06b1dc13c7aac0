"""The token streams that the parity gate reads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ...runtime.errors import CorpusError
from ...runtime.text_sample import HELD_OUT, TRAINING, TextSample
from ...runtime.tokenizer import Tokenizer
from ...train.data.named_texts import builtin_corpus
from .graph_parity import ReferenceModel

__all__ = ["NOISE", "REAL_TEXTS", "TAUGHT", "RealText", "real_text"]

_REFERENCE = "reference text"
_WRITTEN = "written text"

TAUGHT = "same, taught"
"""A real text that is read with what the bundle taught."""

REAL_TEXTS = frozenset({HELD_OUT, TRAINING, _REFERENCE, _WRITTEN, TAUGHT})
"""Names, in reports, of the texts that a model should predict well."""

NOISE = "random tokens"

_LEAST_KNOWN = 0.75
"""A text of which the model knows a smaller share says little about it."""

_ROWS = 16
_FEWEST = 2
"""Below this many tokens a text cannot be read and predicted."""


@dataclass(frozen=True)
class RealText:
    """A text in the language of the model, or as near to it as there is.

    Attributes:
        name: A short name, for tables.
        description: What it is, for messages and cards.
        tokens: The tokens, ``[T]``.
    """

    name: str
    description: str
    tokens: npt.NDArray[np.int64]

    def repeated(self, count: int) -> npt.NDArray[np.int64]:
        """Exactly ``count`` tokens, ``[1, count]``; a shorter text is repeated."""
        return np.resize(self.tokens, (1, count))


def real_text(
    sample: TextSample | None,
    tokenizer: Tokenizer,
    model: ReferenceModel,
    count: int,
    fewest: int = _FEWEST,
) -> RealText:
    """Choose a text to read: the run's own, or Python's, or what the model writes.

    Args:
        sample: The sample that the run kept, if any.
        tokenizer: The model's tokenizer.
        model: Writes a text if it knows too little of Python's, as a model of another alphabet.
        count: Most tokens.
        fewest: Tokens below which a sample is too short to be read.
    """
    if sample is not None and len(sample.tokens) >= fewest:
        return RealText(sample.kind, sample.description, sample.tokens[:count])
    reference = _reference_text(tokenizer, count)
    if reference is not None:
        return reference
    return RealText(_WRITTEN, "a text that the model wrote", _write(model, tokenizer, count))


def _reference_text(tokenizer: Tokenizer, count: int) -> RealText | None:
    """Python's own documentation; ``None`` if the model knows too little of it."""
    try:
        text = builtin_corpus()[: 4 * count]
    except CorpusError:
        return None
    tokens = np.asarray(tokenizer.encode(text)[:count], np.int64)
    letters = [character for character in text if not character.isspace()]
    unknown = set(tokenizer.unknown(text))
    known = 1 - sum(letter in unknown for letter in letters) / len(letters)
    if known < _LEAST_KNOWN or len(tokens) < _FEWEST:
        return None
    description = "Python's reference texts"
    if unknown:
        description += f" (the {known:.1%} of them that the model knows)"
    return RealText(_REFERENCE, description, tokens)


@torch.no_grad()
def _write(model: ReferenceModel, tokenizer: Tokenizer, count: int) -> npt.NDArray[np.int64]:
    """Let a model write from an empty state, in several rows that are then joined."""
    random = np.random.default_rng(2)
    state, tokens = model.zero_state(_ROWS), random.integers(0, tokenizer.vocab_size, (_ROWS, 1))
    columns = []
    for _ in range(-(-count // _ROWS)):
        columns.append(tokens)
        logits, state = model(torch.from_numpy(tokens), state)
        # The largest of the noisy log-probabilities is a draw from the distribution.
        noisy = logits[:, -1].numpy() + random.gumbel(size=(_ROWS, logits.shape[-1]))
        tokens = noisy.argmax(axis=1, keepdims=True).astype(np.int64)
    return np.concatenate(columns, axis=1).reshape(-1)[:count]

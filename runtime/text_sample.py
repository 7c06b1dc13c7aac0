"""A sample of the text that a run held out, for checks of what is made from the run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["HELD_OUT", "TEXT_SAMPLE_FILE", "TRAINING", "TextSample"]

TEXT_SAMPLE_FILE = "text_sample.json"
"""The sample's file in a bundle."""

HELD_OUT = "held-out text"
TRAINING = "training text"


@dataclass(frozen=True)
class TextSample:
    """A piece of a run's text, as tokens: the tokens that training saw, whatever the tokenizer.

    Attributes:
        kind: What it is a piece of: :data:`HELD_OUT`, or :data:`TRAINING` if too little was held
            out.
        tokens: The tokens, ``[T]``.
    """

    kind: str
    tokens: npt.NDArray[np.int64]

    @property
    def description(self) -> str:
        """What it is, for messages and cards."""
        return f"the run's {self.kind}"

    def to_dict(self) -> dict[str, Any]:
        """The sample as plain JSON values."""
        return {"kind": self.kind, "tokens": self.tokens.tolist()}

    @classmethod
    def from_dict(cls, value: Any, vocab_size: int) -> TextSample:
        """Parse what :meth:`to_dict` returned.

        Raises:
            ValueError: It is malformed, or a token is outside the vocabulary.
        """
        if not isinstance(value, dict) or value.get("kind") not in (HELD_OUT, TRAINING):
            raise ValueError("its text sample is of no known kind")
        tokens = value.get("tokens")
        if not isinstance(tokens, list) or not tokens or {type(token) for token in tokens} != {int}:
            raise ValueError("its text sample has no tokens")
        if not 0 <= min(tokens) <= max(tokens) < vocab_size:
            raise ValueError("its text sample has tokens outside the vocabulary")
        return cls(value["kind"], np.asarray(tokens, np.int64))

"""Text that is one of several choices."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UsageError
from ..tokenizer import Tokenizer
from .logit_processors import Logits, tokens_with
from .writable import Limits, alive_places, has_bad_word

__all__ = ["Choices"]


class Choices:
    """Restricts the text to exactly one of several choices.

    Args:
        choices: The texts, none of them a prefix of another.
        tokenizer: The model's tokenizer.
        limits: What else restricts the text; choices with a bad word are left out.

    Raises:
        UsageError: The model cannot write one of the choices, or may write none.
    """

    finish_reason = "choice"

    def __init__(
        self, choices: Sequence[str], tokenizer: Tokenizer, limits: Limits | None = None
    ) -> None:
        self._token_bytes = tokenizer.token_bytes
        self._written = b""
        self._texts = tuple(choices)
        for text in choices:
            if tokenizer.decode(tokenizer.encode(text)) != text:
                raise UsageError(
                    f"choices has {text!r}, with characters that this model does not know: "
                    f"{', '.join(map(repr, tokenizer.unknown(text)))}; use other words"
                )
        self._limit(limits or Limits())

    def _limit(self, limits: Limits) -> None:
        """Keep the choices that may be written, and where some tokens still spell the rest."""
        self._limits = limits
        words = [word.encode() for word in limits.bad_words]
        tokens = [
            b"" if number in limits.forbidden else token
            for number, token in enumerate(self._token_bytes)
        ]
        encoded = [text.encode() for text in self._texts]
        places = {
            text: alive_places(text, tokens)
            for text in encoded
            if not has_bad_word(words, limits.before, text)
        }
        self._places = {text: alive for text, alive in places.items() if 0 in alive}
        self._allowed: dict[bytes, npt.NDArray[np.int64]] = {}
        if not self._places:
            raise UsageError(
                f"choices is {list(self._texts)!r}, and none of them can be written"
                f"{limits.also.replace(', or', ':', 1)}"
            )

    @property
    def done(self) -> bool:
        """Whether a choice is complete."""
        return self._written in self._places

    def allows(self, token: int) -> bool:
        """Whether a choice can still be completed after a token that :meth:`apply` let through."""
        return True

    def apply(self, logits: Logits) -> None:
        """Change logits ``[V]`` in place."""
        allowed = self._allowed.get(self._written)
        if allowed is None:
            written, places = self._written, self._places
            allowed = tokens_with(
                self._token_bytes,
                lambda token: any(
                    choice.startswith(written + token) and len(written + token) in alive
                    for choice, alive in places.items()
                ),
            )
            self._allowed[written] = allowed
        kept = logits[allowed]
        logits.fill(-math.inf)
        logits[allowed] = kept

    def accept(self, token: int) -> None:
        """Append a token's bytes to the text."""
        self._written += self._token_bytes[token]

    def snapshot(self) -> Any:
        """The part of a choice written so far, and what was read before, in hexadecimal."""
        return {"written": self._written.hex(), "before": self._limits.before.hex()}

    def restore(self, value: Any) -> None:
        """Return to what :meth:`snapshot` returned."""
        value = value if isinstance(value, dict) else {"written": value}  # of earlier versions
        written = bytes.fromhex(value["written"])
        before = bytes.fromhex(value.get("before", ""))
        if before != self._limits.before:
            self._limit(dataclasses.replace(self._limits, before=before))
        if not any(choice.startswith(written) for choice in self._places):
            raise ValueError("the text is not a prefix of any choice")
        self._written = written

"""What changes logits before a token is drawn from them, because of what was read or written.

Each works in place on the logits ``[V]`` of one stream, in float64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import UsageError
from ..tokenizer import Tokenizer

__all__ = ["BadWords", "Choices", "LogitBias", "LogitProcessor", "Penalties"]

Logits = npt.NDArray[np.float64]


class LogitProcessor(Protocol):
    """Changes logits; may depend on the tokens that were chosen before."""

    def apply(self, logits: Logits) -> None:
        """Change logits ``[V]`` in place."""
        ...

    def accept(self, token: int) -> None:
        """Take notice of the token that was chosen."""
        ...

    def snapshot(self) -> Any:
        """What it has taken notice of, as a JSON value."""
        ...

    def restore(self, value: Any) -> None:
        """Go back to what :meth:`snapshot` returned.

        Raises:
            ValueError: It did not.
        """
        ...


class LogitBias:
    """Adds to the logits of some tokens.

    Args:
        bias: What to add, by the token's number or its text.
        tokenizer: The tokenizer.

    Raises:
        UsageError: A key is no token.
    """

    def __init__(self, bias: Mapping[int | str, float], tokenizer: Tokenizer) -> None:
        tokens = [_token(key, tokenizer) for key in bias]
        self._tokens = np.asarray(tokens, np.int64)
        self._bias = np.asarray(list(bias.values()), np.float64)

    def apply(self, logits: Logits) -> None:
        """Change logits ``[V]`` in place."""
        # Not `logits[tokens] +=`, which adds once where a number and a text name one token.
        np.add.at(logits, self._tokens, self._bias)

    def accept(self, token: int) -> None:
        """Nothing to take notice of."""

    def snapshot(self) -> Any:
        """Nothing."""
        return None

    def restore(self, value: Any) -> None:
        """Nothing to go back to."""


def _token(key: int | str, tokenizer: Tokenizer) -> int:
    if isinstance(key, int):
        if not 0 <= key < tokenizer.vocab_size:
            raise UsageError(
                f"logit_bias names the token {key}; tokens lie between 0 and "
                f"{tokenizer.vocab_size - 1}"
            )
        return key
    tokens = tokenizer.encode(key)
    if len(tokens) != 1 or tokenizer.unknown(key):
        raise UsageError(
            f"logit_bias names the text {key!r}, which is {len(tokens)} tokens of this model and "
            "must be one"
        )
    return tokens[0]


class Penalties:
    """Makes tokens that came before less likely.

    Args:
        repetition: Divides positive and multiplies negative logits of tokens that were seen.
        frequency: Subtracted for each time that a token was generated.
        presence: Subtracted where a token was generated.
        seen: Which tokens the stream has read or written, ``[V]``; the stream keeps it.
    """

    def __init__(
        self, repetition: float, frequency: float, presence: float, seen: npt.NDArray[np.bool_]
    ) -> None:
        self._repetition, self._frequency, self._presence = repetition, frequency, presence
        self._seen = seen
        self._counts: dict[int, int] = {}

    def apply(self, logits: Logits) -> None:
        """Change logits ``[V]`` in place."""
        if self._repetition != 1:
            some = logits[self._seen]
            factor = np.where(some > 0, 1 / self._repetition, self._repetition)
            logits[self._seen] = some * factor
        if self._counts and (self._frequency or self._presence):
            tokens = np.fromiter(self._counts, np.int64, len(self._counts))
            counts = np.fromiter(self._counts.values(), np.float64, len(self._counts))
            logits[tokens] -= self._frequency * counts + self._presence

    def accept(self, token: int) -> None:
        """Count a token."""
        self._seen[token] = True
        self._counts[token] = self._counts.get(token, 0) + 1

    def snapshot(self) -> Any:
        """How often each token was generated."""
        return [[token, count] for token, count in self._counts.items()]

    def restore(self, value: Any) -> None:
        """Go back to what :meth:`snapshot` returned."""
        counts = {int(token): int(count) for token, count in value}
        if not all(0 <= token < self._seen.size for token in counts):
            raise ValueError("a token that does not exist was counted")
        self._counts = counts


class BadWords:
    """Never lets one of some texts be completed, whatever tokens it would be made of.

    It compares bytes: a word that a longer token contains, or that begins in the prompt, is
    found as well.

    Args:
        words: The texts.
        tokenizer: The tokenizer.
        before: The last bytes of what the stream has read.
    """

    def __init__(self, words: Sequence[str], tokenizer: Tokenizer, before: bytes = b"") -> None:
        encoded = [word.encode("utf-8", "replace") for word in words]
        self._token_bytes = tokenizer.token_bytes
        self._longest = max(map(len, encoded)) - 1
        self._tail = b""
        self._inside = _tokens_with(
            self._token_bytes, lambda token: any(w in token for w in encoded)
        )
        # For each way of cutting a word in two, the tokens that begin with its second part.
        self._endings = {}
        for word in encoded:
            for cut in range(1, len(word)):
                rest = word[cut:]
                tokens = _tokens_with(
                    self._token_bytes, lambda token, rest=rest: token.startswith(rest)
                )
                if tokens.size:
                    self._endings[word[:cut], rest] = tokens
        self._remember(before)

    def apply(self, logits: Logits) -> None:
        """Change logits ``[V]`` in place."""
        logits[self._inside] = -math.inf
        for (beginning, _), tokens in self._endings.items():
            if self._tail.endswith(beginning):
                logits[tokens] = -math.inf

    def accept(self, token: int) -> None:
        """Remember the last bytes."""
        self._remember(self._token_bytes[token])

    def _remember(self, new: bytes) -> None:
        tail = self._tail + new
        self._tail = tail[max(0, len(tail) - self._longest) :]

    def snapshot(self) -> Any:
        """The last bytes."""
        return self._tail.hex()

    def restore(self, value: Any) -> None:
        """Go back to what :meth:`snapshot` returned."""
        self._tail = b""
        self._remember(bytes.fromhex(value))


class Choices:
    """Lets exactly one of some texts be written.

    Args:
        choices: The texts, none of them the beginning of another.
        tokenizer: The tokenizer.

    Raises:
        UsageError: The model cannot write one of them.
    """

    finish_reason = "choice"

    def __init__(self, choices: Sequence[str], tokenizer: Tokenizer) -> None:
        self._token_bytes = tokenizer.token_bytes
        self._choices = [choice.encode("utf-8", "replace") for choice in choices]
        self._written = b""
        self._allowed: dict[bytes, npt.NDArray[np.int64]] = {}
        for choice, text in zip(self._choices, choices, strict=True):
            if tokenizer.decode(tokenizer.encode(text)).encode() != choice:
                raise UsageError(
                    f"choices has {text!r}, with characters that this model has never seen: "
                    f"{', '.join(map(repr, tokenizer.unknown(text)))}; choose other words"
                )

    @property
    def done(self) -> bool:
        """Whether a choice is complete."""
        return self._written in self._choices

    def apply(self, logits: Logits) -> None:
        """Change logits ``[V]`` in place."""
        allowed = self._allowed.get(self._written)
        if allowed is None:
            rests = [
                choice[len(self._written) :]
                for choice in self._choices
                if choice.startswith(self._written)
            ]
            allowed = _tokens_with(
                self._token_bytes, lambda token: any(rest.startswith(token) for rest in rests)
            )
            self._allowed[self._written] = allowed
        kept = logits[allowed]
        logits.fill(-math.inf)
        logits[allowed] = kept

    def accept(self, token: int) -> None:
        """Append a token's bytes."""
        self._written += self._token_bytes[token]

    def snapshot(self) -> Any:
        """What is written of a choice."""
        return self._written.hex()

    def restore(self, value: Any) -> None:
        """Go back to what :meth:`snapshot` returned."""
        written = bytes.fromhex(value)
        if not any(choice.startswith(written) for choice in self._choices):
            raise ValueError("what was written begins no choice")
        self._written = written


def _tokens_with(token_bytes: list[bytes], fits: Any) -> npt.NDArray[np.int64]:
    found = [number for number, token in enumerate(token_bytes) if token and fits(token)]
    return np.asarray(found, np.int64)

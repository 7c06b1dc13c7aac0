"""Changes to the logits before a token is drawn, depending on what was read and written.

Each processor works in place on the float64 logits ``[V]`` of one stream.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import UsageError
from ..tokenizer import Tokenizer
from .writable import Limits, alive_places, has_bad_word

__all__ = ["BadWords", "Choices", "LogitBias", "LogitProcessor", "Penalties"]

Logits = npt.NDArray[np.float64]


class LogitProcessor(Protocol):
    """Changes logits, possibly depending on the tokens chosen so far."""

    def apply(self, logits: Logits) -> None:
        """Change logits ``[V]`` in place."""
        ...

    def accept(self, token: int) -> None:
        """Record the token that was chosen."""
        ...

    def snapshot(self) -> Any:
        """Everything recorded so far, as a JSON value."""
        ...

    def restore(self, value: Any) -> None:
        """Return to what :meth:`snapshot` returned.

        Raises:
            ValueError: ``value`` is not such a snapshot.
        """
        ...


class LogitBias:
    """Adds a bias to the logits of some tokens.

    Args:
        bias: The value to add, keyed by a token's number or its text.
        tokenizer: The model's tokenizer.

    Raises:
        UsageError: A key is not a token.
    """

    def __init__(self, bias: Mapping[int | str, float], tokenizer: Tokenizer) -> None:
        tokens = [_token(key, tokenizer) for key in bias]
        self.forbidden = frozenset(
            token for token, value in zip(tokens, bias.values(), strict=True) if value == -math.inf
        )
        """Tokens that are never drawn."""
        self._tokens = np.asarray(tokens, np.int64)
        self._bias = np.asarray(list(bias.values()), np.float64)

    def apply(self, logits: Logits) -> None:
        """Change logits ``[V]`` in place."""
        # Not `logits[tokens] +=`: it adds only once if a number and a text name the same token.
        np.add.at(logits, self._tokens, self._bias)

    def accept(self, token: int) -> None:
        """Do nothing: a bias depends on no token."""

    def snapshot(self) -> Any:
        """Nothing to save."""
        return None

    def restore(self, value: Any) -> None:
        """Do nothing: there is nothing to restore."""


def _token(key: int | str, tokenizer: Tokenizer) -> int:
    if isinstance(key, int):
        if not 0 <= key < tokenizer.vocab_size:
            raise UsageError(
                f"logit_bias names the token {key}; tokens must lie between 0 and "
                f"{tokenizer.vocab_size - 1}"
            )
        return key
    tokens = tokenizer.encode(key)
    if len(tokens) != 1 or tokenizer.unknown(key):
        raise UsageError(
            f"logit_bias names the text {key!r}, which is {len(tokens)} tokens in this model; it "
            "must be exactly one"
        )
    return tokens[0]


class Penalties:
    """Makes tokens that occurred before less likely.

    Args:
        repetition: Divides the positive and multiplies the negative logits of tokens seen before.
        frequency: Subtracted once for each time that a token was generated.
        presence: Subtracted once if a token was generated at all.
        seen: Which tokens the stream has read or written, ``[V]``; owned by the stream.
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
            repeated = logits[self._seen]
            factor = np.where(repeated > 0, 1 / self._repetition, self._repetition)
            logits[self._seen] = repeated * factor
        if self._counts and (self._frequency or self._presence):
            tokens = np.fromiter(self._counts, np.int64, len(self._counts))
            counts = np.fromiter(self._counts.values(), np.float64, len(self._counts))
            logits[tokens] -= self._frequency * counts + self._presence

    def accept(self, token: int) -> None:
        """Count a token."""
        self._seen[token] = True
        self._counts[token] = self._counts.get(token, 0) + 1

    def snapshot(self) -> Any:
        """Pairs of a token and how often it was generated."""
        return [[token, count] for token, count in self._counts.items()]

    def restore(self, value: Any) -> None:
        """Return to what :meth:`snapshot` returned."""
        counts = {int(token): int(count) for token, count in value}
        if not all(0 <= token < self._seen.size for token in counts):
            raise ValueError("the penalties count a token that does not exist")
        self._counts = counts


class BadWords:
    """Forbids every token that would complete one of the words, however it is tokenized.

    Words are compared as bytes, so a word inside a longer token, or one that begins in the prompt,
    is caught too.

    Args:
        words: The forbidden texts.
        tokenizer: The model's tokenizer.
        before: The last bytes that the stream has read.
    """

    def __init__(self, words: Sequence[str], tokenizer: Tokenizer, before: bytes = b"") -> None:
        encoded = [word.encode("utf-8", "replace") for word in words]
        self._token_bytes = tokenizer.token_bytes
        self._tail_length = max(map(len, encoded)) - 1
        self._tail = b""
        self._containing = _tokens_with(
            self._token_bytes, lambda token: any(w in token for w in encoded)
        )
        # For each way to split a word in two, the tokens that begin with the second part.
        self._endings = {}
        for word in encoded:
            for cut in range(1, len(word)):
                tokens = _tokens_beginning_with(self._token_bytes, word[cut:])
                if tokens.size:
                    self._endings[word[:cut], word[cut:]] = tokens
        self._remember(before)

    def apply(self, logits: Logits) -> None:
        """Change logits ``[V]`` in place."""
        logits[self._containing] = -math.inf
        for (beginning, _), tokens in self._endings.items():
            if self._tail.endswith(beginning):
                logits[tokens] = -math.inf

    def accept(self, token: int) -> None:
        """Append a token's bytes to the remembered tail."""
        self._remember(self._token_bytes[token])

    def _remember(self, new: bytes) -> None:
        tail = self._tail + new
        self._tail = tail[max(0, len(tail) - self._tail_length) :]

    def snapshot(self) -> Any:
        """The remembered tail, in hexadecimal."""
        return self._tail.hex()

    def restore(self, value: Any) -> None:
        """Return to what :meth:`snapshot` returned."""
        self._tail = b""
        self._remember(bytes.fromhex(value))


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
            allowed = _tokens_with(
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


def _tokens_with(
    token_bytes: list[bytes], matches: Callable[[bytes], bool]
) -> npt.NDArray[np.int64]:
    """The tokens whose bytes match; tokens without bytes never do."""
    tokens = [number for number, token in enumerate(token_bytes) if token and matches(token)]
    return np.asarray(tokens, np.int64)


def _tokens_beginning_with(token_bytes: list[bytes], prefix: bytes) -> npt.NDArray[np.int64]:
    return _tokens_with(token_bytes, lambda token: token.startswith(prefix))

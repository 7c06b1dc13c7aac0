"""Changes to the logits before a token is drawn, depending on what was read and written.

Each processor works in place on the float64 logits ``[V]`` of one stream.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import UsageError
from ..tokenizer import Tokenizer
from .token_tail import TokenTail

__all__ = [
    "BadWords",
    "Custom",
    "LogitBias",
    "LogitProcessor",
    "Logits",
    "MinLength",
    "NoRepeats",
    "Stateless",
    "check_tokens",
    "tokens_with",
]

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


class Stateless:
    """A processor that records nothing; what it looks back on, the sampler saves."""

    def accept(self, token: int) -> None:
        """Do nothing."""

    def snapshot(self) -> Any:
        """Nothing to save."""
        return None

    def restore(self, value: Any) -> None:
        """Do nothing: there is nothing to restore."""


class LogitBias(Stateless):
    """Adds a bias to the logits of some tokens.

    Args:
        bias: The value to add, keyed by a token's number or a text. Of a text of several tokens,
            the last gets the bias, where the others stand before it.
        tokenizer: The model's tokenizer.
        tail: The last tokens of the stream; owned by the sampler.

    Raises:
        UsageError: A key is not a token, or a text that the model cannot write.
    """

    def __init__(
        self, bias: Mapping[int | str, float], tokenizer: Tokenizer, tail: TokenTail
    ) -> None:
        keyed = [(_tokens(key, tokenizer), value) for key, value in bias.items()]
        single = [(tokens[0], value) for tokens, value in keyed if len(tokens) == 1]
        self.forbidden = frozenset(token for token, value in single if value == -math.inf)
        """Tokens that are never drawn."""
        self.forbidden_texts = tuple(
            str(key)
            for (key, value), (tokens, _) in zip(bias.items(), keyed, strict=True)
            if len(tokens) > 1 and value == -math.inf
        )
        """Texts of several tokens that are never written: they are as good as bad words."""
        self._bias = np.asarray([value for _, value in single], np.float64)
        self._tokens = np.asarray([token for token, _ in single], np.int64)
        self._sequences = [
            (np.asarray(tokens[:-1], np.int64), tokens[-1], value)
            for tokens, value in keyed
            if len(tokens) > 1 and value != -math.inf
        ]
        self._tail = tail

    def apply(self, logits: Logits) -> None:
        """Change logits ``[V]`` in place."""
        # Not `logits[tokens] +=`: it adds only once if a number and a text name the same token.
        np.add.at(logits, self._tokens, self._bias)
        for before, token, value in self._sequences:
            if np.array_equal(self._tail.tokens[-before.size :], before):
                logits[token] += value


def _tokens(key: int | str, tokenizer: Tokenizer) -> list[int]:
    if isinstance(key, int):
        check_tokens("logit_bias", [key], tokenizer.vocab_size)
        return [key]
    tokens = tokenizer.encode(key)
    if unknown := tokenizer.unknown(key):
        raise UsageError(
            f"logit_bias names the text {key!r}, with characters that this model does not know: "
            f"{', '.join(map(repr, unknown))}; leave it out"
        )
    return tokens


def check_tokens(name: str, tokens: Iterable[int], vocab_size: int) -> None:
    """Refuse numbers that are no tokens.

    Raises:
        UsageError: There are such.
    """
    for token in tokens:
        if not 0 <= token < vocab_size:
            raise UsageError(
                f"{name} names the token {token}; tokens must lie between 0 and {vocab_size - 1}"
            )


class NoRepeats(Stateless):
    """Forbids every token that would complete an n-gram that was read or written before.

    Args:
        size: Tokens of an n-gram.
        tail: The last tokens of the stream; owned by the sampler.
    """

    def __init__(self, size: int, tail: TokenTail) -> None:
        self._size, self._tail = size, tail

    def apply(self, logits: Logits) -> None:
        """Change logits ``[V]`` in place."""
        tokens, size = self._tail.tokens, self._size
        places = tokens.size - size + 1  # where an n-gram may have begun
        if places <= 0:
            return
        begun = np.arange(places)
        for place in range(size - 1):
            begun = begun[tokens[begun + place] == tokens[places + place]]
            if not begun.size:
                return
        logits[tokens[begun + size - 1]] = -math.inf


class MinLength:
    """Forbids tokens that would end the text too early.

    Args:
        least: Tokens to write before one of them.
        tokens: The tokens that end the text.
    """

    def __init__(self, least: int, tokens: Sequence[int]) -> None:
        self._least, self._tokens = least, np.asarray(tokens, np.int64)
        self._count = 0

    def apply(self, logits: Logits) -> None:
        """Change logits ``[V]`` in place."""
        if self._count < self._least:
            logits[self._tokens] = -math.inf

    def accept(self, token: int) -> None:
        """Count a token."""
        self._count += 1

    def snapshot(self) -> Any:
        """How many tokens were written."""
        return self._count

    def restore(self, value: Any) -> None:
        """Return to what :meth:`snapshot` returned."""
        self._count = int(value)


class Custom(Stateless):
    """The caller's own function.

    Args:
        function: Returns new logits for the last tokens, ``[T]``, and logits ``[V]``.
        tail: The last tokens of the stream; owned by the sampler.
    """

    def __init__(self, function: Callable[..., Any], tail: TokenTail) -> None:
        self._function, self._tail = function, tail

    def apply(self, logits: Logits) -> None:
        """Change logits ``[V]`` in place.

        Raises:
            UsageError: The function returned no logits.
        """
        returned = self._function(self._tail.tokens.copy(), logits.copy())
        try:
            changed = np.asarray(returned, np.float64)
        except (TypeError, ValueError):
            changed = np.zeros(0)
        if changed.shape != logits.shape or not (changed < math.inf).all():
            raise UsageError(
                f"logits_processor returned {repr(returned)[:60]}; it must return {logits.size} "
                "numbers, none of them NaN or infinite; -inf forbids a token"
            )
        logits[:] = changed


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
        self._containing = tokens_with(
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


def tokens_with(
    token_bytes: list[bytes], matches: Callable[[bytes], bool]
) -> npt.NDArray[np.int64]:
    """The tokens whose bytes match; tokens without bytes never do."""
    tokens = [number for number, token in enumerate(token_bytes) if token and matches(token)]
    return np.asarray(tokens, np.int64)


def _tokens_beginning_with(token_bytes: list[bytes], prefix: bytes) -> npt.NDArray[np.int64]:
    return tokens_with(token_bytes, lambda token: token.startswith(prefix))

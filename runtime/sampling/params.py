"""The sampling options, named as in Hugging Face."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import UsageError
from ..scalars import plain

__all__ = ["LONGEST_BAD_WORD", "SamplingParams"]

LONGEST_BAD_WORD = 256
"""Bytes. A stream remembers enough of its latest tokens to see where such a word began."""

_LARGEST = 1e30
"""The largest penalty or bias: beyond it, a sum of several could overflow."""


@dataclass(frozen=True)
class SamplingParams:
    """How to sample; names and meanings are Hugging Face's where it has them.

    The options apply in Hugging Face's order: bias, repetition penalty, frequency and presence
    penalty, bad words, choices or pattern, temperature, top-k, top-p, min-p, typical-p.

    Attributes:
        temperature: Divides the logits; 0 always takes the likeliest token.
        top_k: Keep the k likeliest tokens; 0 keeps all.
        top_p: Keep the smallest set of likeliest tokens whose probabilities add up to at least
            this; 1 keeps all.
        seed: Seed of the random numbers; ``None`` draws a fresh one.
        min_p: Keep tokens at least this fraction as likely as the likeliest; 0 keeps all.
        typical_p: Keep the smallest set of tokens whose surprise is nearest to the expected
            surprise and whose probabilities add up to at least this; 1 keeps all.
        repetition_penalty: Divides the positive and multiplies the negative logits of tokens that
            the stream has read or written; 1 changes nothing. Logits are log-probabilities here.
        frequency_penalty: Subtracted from a token's logit for each time it was generated in this
            call.
        presence_penalty: Subtracted from a token's logit if it was generated in this call.
        logit_bias: Added to the logits of tokens, keyed by a token's number or its text; ``-inf``
            forbids a token.
        bad_words: Texts that are never written, however they are tokenized.
        choices: Write exactly one of these texts.
        regex: Write only text that this regular expression matches as a whole, in the syntax of
            Rust's ``regex``; the text ends where nothing may follow. Requires ``rillet[grammar]``.
        grammar: Write only text that this grammar allows, in llguidance's variant of Lark's syntax.
            Requires ``rillet[grammar]``.
        max_new_tokens: Maximum number of tokens to generate.
        stop: Texts that end the generation; they are not part of the result.
        top_logprobs: How many of the likeliest tokens to report with each token.

    Raises:
        UsageError: A value is invalid.
    """

    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None
    min_p: float = field(default=0.0, kw_only=True)
    typical_p: float = field(default=1.0, kw_only=True)
    repetition_penalty: float = field(default=1.0, kw_only=True)
    frequency_penalty: float = field(default=0.0, kw_only=True)
    presence_penalty: float = field(default=0.0, kw_only=True)
    logit_bias: Mapping[int | str, float] = field(default_factory=dict, kw_only=True, hash=False)
    bad_words: Sequence[str] = field(default=(), kw_only=True)
    choices: Sequence[str] = field(default=(), kw_only=True)
    regex: str | None = field(default=None, kw_only=True)
    grammar: str | None = field(default=None, kw_only=True)
    max_new_tokens: int = field(default=200, kw_only=True)
    stop: Sequence[str] = field(default=(), kw_only=True)
    top_logprobs: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            object.__setattr__(self, name, plain(getattr(self, name)))
        for name in _REALS:
            _check_real(name, getattr(self, name))
        if self.temperature < 0:
            raise UsageError(
                f"temperature is {self.temperature}; it must be 0 (greedy) or above, such as 0.8"
            )
        if type(self.top_k) is not int or self.top_k < 0:
            raise UsageError(
                f"top_k is {self.top_k!r}; it must be a whole number, 0 (keep all) or above"
            )
        for name in ("top_p", "typical_p"):
            if not 0 < getattr(self, name) <= 1:
                raise UsageError(
                    f"{name} is {getattr(self, name)}; it must lie above 0 and be at most 1"
                )
        if not 0 <= self.min_p <= 1:
            raise UsageError(f"min_p is {self.min_p}; it must lie between 0 and 1")
        if not 1 / _LARGEST <= self.repetition_penalty <= _LARGEST:
            raise UsageError(
                f"repetition_penalty is {self.repetition_penalty}; it must be above 0 and at "
                "most 1e30, such as 1.1"
            )
        for name in ("frequency_penalty", "presence_penalty"):
            if not abs(getattr(self, name)) <= _LARGEST:
                raise UsageError(
                    f"{name} is {getattr(self, name)}; it must lie between -1e30 and 1e30"
                )
        for name in ("max_new_tokens", "top_logprobs"):
            value = getattr(self, name)
            if type(value) is not int or value < 0:
                raise UsageError(f"{name} is {value!r}; it must be a whole number, 0 or above")
        if self.seed is not None and (type(self.seed) is not int or self.seed < 0):
            raise UsageError(f"seed is {self.seed!r}; it must be a whole number, 0 or above")
        for name in ("stop", "bad_words", "choices"):
            object.__setattr__(self, name, _checked_texts(name, getattr(self, name)))
        _check_bad_words(self.bad_words)
        _check_choices(self.choices)
        for name in ("regex", "grammar"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value):
                raise UsageError(f"{name} is {value!r}; it must be a non-empty text")
        constraints = [name for name in ("choices", "regex", "grammar") if getattr(self, name)]
        if len(constraints) > 1:
            raise UsageError(
                f"{' and '.join(constraints)} each say what may be written; give only one of them"
            )
        object.__setattr__(self, "logit_bias", _checked_bias(self.logit_bias))

    @property
    def filters(self) -> tuple[int, float, float, float]:
        """The options that leave tokens out: top-k, top-p, min-p, typical-p."""
        return self.top_k, self.top_p, self.min_p, self.typical_p


_REALS = (
    "temperature",
    "top_p",
    "min_p",
    "typical_p",
    "repetition_penalty",
    "frequency_penalty",
    "presence_penalty",
)


def _check_real(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value):
        raise UsageError(f"{name} is {value!r}; it must be a finite number")


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer too large for a float
        return False


def _checked_texts(name: str, value: Any) -> tuple[str, ...]:
    texts = (value,) if isinstance(value, str) else value
    if not isinstance(texts, Sequence) or isinstance(texts, bytes):
        raise UsageError(f"{name} is {value!r}; it must be a text or a list of texts")
    for text in texts:
        if not isinstance(text, str) or not text:
            raise UsageError(f"{name} has the entry {text!r}; each must be a non-empty text")
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise UsageError(
                f"{name} has {text!r}, which contains half a surrogate pair; write the whole "
                "character"
            )
    return tuple(texts)


def _check_bad_words(words: Sequence[str]) -> None:
    for word in words:
        if (size := len(word.encode())) > LONGEST_BAD_WORD:
            raise UsageError(
                f"bad_words has {word[:40]!r} of {size} bytes; each may have at most "
                f"{LONGEST_BAD_WORD}, since a stream remembers only its latest text"
            )


def _check_choices(choices: Sequence[str]) -> None:
    ordered = sorted(set(choices))
    # Sorted, a text comes directly before the texts that begin with it.
    for first, second in itertools.pairwise(ordered):
        if second.startswith(first):
            raise UsageError(
                f"choices has {first!r}, which is the beginning of {second!r}, so its end is "
                "ambiguous; add the same ending, such as a line break, to all choices"
            )


def _checked_bias(value: Any) -> dict[int | str, float]:
    if not isinstance(value, Mapping):
        raise UsageError(f"logit_bias is {value!r}; it must map tokens to numbers")
    for token, bias in value.items():
        if type(token) not in (int, str):
            raise UsageError(f"logit_bias names the token {token!r}; give its number or its text")
        is_real = isinstance(bias, int | float) and not isinstance(bias, bool)
        if not is_real or not (abs(bias) <= _LARGEST or bias == -math.inf):
            raise UsageError(
                f"logit_bias adds {bias!r} to {token!r}; it must lie between -1e30 and 1e30, or be "
                "-inf"
            )
    return dict(value)

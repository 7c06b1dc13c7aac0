"""How to sample, by the names that Hugging Face gives it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import UsageError

__all__ = ["LONGEST_BAD_WORD", "SamplingParams"]

LONGEST_BAD_WORD = 256
"""Bytes: of what it has read, a stream remembers enough tokens to see where such a word began."""

_LARGEST = 1e30
"""The largest penalty or bias: beyond it, sums of several overflow."""


@dataclass(frozen=True)
class SamplingParams:
    """How to sample; the names and meanings are Hugging Face's where it has them.

    They are applied in the order in which Hugging Face applies them: bias, repetition penalty,
    frequency and presence penalty, bad words, choices or
    pattern, temperature, top-k, top-p, min-p, typical-p.

    Attributes:
        temperature: Divides the logits; 0 always takes the likeliest token.
        top_k: Keep the k likeliest tokens; 0 keeps all.
        top_p: Keep the smallest set of likeliest tokens whose probabilities reach
            this sum; 1 keeps all.
        seed: Seed of the random numbers; ``None`` draws a fresh one.
        min_p: Keep tokens at least this fraction as likely as the likeliest; 0 keeps all.
        typical_p: Keep the smallest set of tokens whose surprise is nearest to the expected one
            and whose probabilities reach this sum; 1 keeps all.
        repetition_penalty: Divides positive and multiplies negative logits of tokens that the
            stream has read or written; 1 changes nothing. The logits are log-probabilities here.
        frequency_penalty: Subtracted from a token's logit for each time it was generated since
            the call began.
        presence_penalty: Subtracted from the logit of a token that was generated since the call
            began.
        logit_bias: Added to the logits of tokens, which are given by number or by their text;
            ``-inf`` forbids one.
        bad_words: Texts that are never written, whatever tokens they would be made of.
        choices: Exactly one of these texts is written.
        regex: Only text that this regular expression matches as a whole is written, in the
            syntax of Rust's ``regex``; it ends where nothing may follow. Needs ``rillet[grammar]``.
        grammar: The same by a grammar, in llguidance's form of Lark's syntax.
        max_new_tokens: Tokens to generate at most.
        stop: Texts that end the generation. They are not part of what is returned.
        top_logprobs: How many of the likeliest tokens to report with each token.

    Raises:
        UsageError: A value can never work.
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
        for name in _REALS:
            _real(name, getattr(self, name))
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
                    f"{name} is {getattr(self, name)}; it must lie above 0 and not above 1"
                )
        if not 0 <= self.min_p <= 1:
            raise UsageError(f"min_p is {self.min_p}; it must lie between 0 and 1")
        if not 1 / _LARGEST <= self.repetition_penalty <= _LARGEST:
            raise UsageError(
                f"repetition_penalty is {self.repetition_penalty}; it must be above 0, and not "
                "beyond 1e30, such as 1.1"
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
            object.__setattr__(self, name, _texts(name, getattr(self, name)))
        _check_bad_words(self.bad_words)
        _check_choices(self.choices)
        for name in ("regex", "grammar"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value):
                raise UsageError(f"{name} is {value!r}; it must be a text, and not empty")
        given = [name for name in ("choices", "regex", "grammar") if getattr(self, name)]
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)} both say what may be written; give one")
        object.__setattr__(self, "logit_bias", _bias(self.logit_bias))

    @property
    def filters(self) -> tuple[int, float, float, float]:
        """What leaves tokens out: top-k, top-p, min-p, typical-p."""
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


def _real(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value):
        raise UsageError(f"{name} is {value!r}; it must be a finite number")


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float can hold
        return False


def _texts(name: str, value: Any) -> tuple[str, ...]:
    texts = (value,) if isinstance(value, str) else value
    if not isinstance(texts, Sequence) or isinstance(texts, bytes):
        raise UsageError(f"{name} is {value!r}; it must be a text or a list of texts")
    for text in texts:
        if not isinstance(text, str) or not text:
            raise UsageError(f"{name} has the entry {text!r}; each must be a text, and not empty")
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise UsageError(f"{name} has {text!r}, which holds half a character; write it out")
    return tuple(texts)


def _check_bad_words(words: Sequence[str]) -> None:
    for word in words:
        if (size := len(word.encode())) > LONGEST_BAD_WORD:
            raise UsageError(
                f"bad_words has {word[:40]!r}, of {size} bytes; each must be of at most "
                f"{LONGEST_BAD_WORD}, which is what a stream remembers of its text"
            )


def _check_choices(choices: Sequence[str]) -> None:
    ordered = sorted(set(choices))
    # In this order a text comes right before those that begin with it.
    for first, second in itertools.pairwise(ordered):
        if second.startswith(first):
            raise UsageError(
                f"choices has {first!r}, with which {second!r} begins, so that its end cannot be "
                "told; add the same ending, such as a line break, to all choices"
            )


def _bias(value: Any) -> dict[int | str, float]:
    if not isinstance(value, Mapping):
        raise UsageError(f"logit_bias is {value!r}; it must map tokens to numbers")
    for token, bias in value.items():
        if type(token) not in (int, str):
            raise UsageError(f"logit_bias names the token {token!r}; give its number or its text")
        real = isinstance(bias, int | float) and not isinstance(bias, bool)
        if not real or not (abs(bias) <= _LARGEST or bias == -math.inf):
            raise UsageError(
                f"logit_bias adds {bias!r} to {token!r}; it must lie between -1e30 and 1e30, or be "
                "-inf"
            )
    return dict(value)

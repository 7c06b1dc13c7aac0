"""Whether the values of sampling options can work."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import UsageError
from ..scalars import plain
from .token_tail import REACH

__all__ = [
    "LONGEST_BAD_WORD",
    "check_escapes",
    "check_numbers",
    "checked_bias",
    "checked_choices",
    "checked_flag",
    "checked_function",
    "checked_texts",
    "checked_tokens",
    "checked_words",
]

LONGEST_BAD_WORD = 256
"""Bytes. A stream remembers enough of its latest tokens to see where such a word began."""

_LARGEST = 1e30
"""The largest penalty or bias: beyond it, a sum of several could overflow."""

_REALS = (
    "temperature",
    "top_p",
    "min_p",
    "typical_p",
    "epsilon_cutoff",
    "eta_cutoff",
    "repetition_penalty",
    "frequency_penalty",
    "presence_penalty",
)

_COUNTS = ("max_new_tokens", "min_new_tokens", "top_logprobs")

_WINDOWS = ("penalty_window", "no_repeat_ngram_size")


def check_numbers(options: Mapping[str, Any]) -> None:
    """Refuse numbers that can never work.

    Args:
        options: Every option, by name.

    Raises:
        UsageError: There are such.
    """
    for name in _REALS:
        _check_real(name, options[name])
    if (temperature := options["temperature"]) < 0:
        raise UsageError(
            f"temperature is {temperature}; it must be 0 (greedy) or above, such as 0.8"
        )
    if type(top_k := options["top_k"]) is not int or top_k < 0:
        raise UsageError(f"top_k is {top_k!r}; it must be a whole number, 0 (keep all) or above")
    _check_filters(options)
    _check_penalties(options)
    for name in _COUNTS:
        value = options[name]
        if type(value) is not int or value < 0:
            raise UsageError(f"{name} is {value!r}; it must be a whole number, 0 or above")
    for name in _WINDOWS:
        value = options[name]
        if type(value) is not int or not 0 <= value <= REACH:
            raise UsageError(
                f"{name} is {value!r}; it must be a whole number from 0 (off) to {REACH}"
            )
    if (seed := options["seed"]) is not None and (type(seed) is not int or seed < 0):
        raise UsageError(f"seed is {seed!r}; it must be a whole number, 0 or above")
    if (seconds := options["max_time"]) is not None:
        _check_real("max_time", seconds)
        if seconds <= 0:
            raise UsageError(f"max_time is {seconds}; it must be above 0 seconds")


def _check_filters(options: Mapping[str, Any]) -> None:
    for name in ("top_p", "typical_p"):
        if not 0 < options[name] <= 1:
            raise UsageError(f"{name} is {options[name]}; it must lie above 0 and be at most 1")
    if not 0 <= options["min_p"] <= 1:
        raise UsageError(f"min_p is {options['min_p']}; it must lie between 0 and 1")
    for name in ("epsilon_cutoff", "eta_cutoff"):
        if not 0 <= options[name] < 1:
            raise UsageError(f"{name} is {options[name]}; it must be at least 0 (off) and below 1")


def _check_penalties(options: Mapping[str, Any]) -> None:
    if not 1 / _LARGEST <= (value := options["repetition_penalty"]) <= _LARGEST:
        raise UsageError(
            f"repetition_penalty is {value}; it must be above 0 and at most 1e30, such as 1.1"
        )
    for name in ("frequency_penalty", "presence_penalty"):
        if not abs(options[name]) <= _LARGEST:
            raise UsageError(f"{name} is {options[name]}; it must lie between -1e30 and 1e30")


def _check_real(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value):
        raise UsageError(f"{name} is {value!r}; it must be a finite number")


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer too large for a float
        return False


def checked_flag(name: str, value: Any) -> bool:
    """An option that is true or false.

    Raises:
        UsageError: It is something else.
    """
    if not isinstance(value, bool):
        raise UsageError(f"{name} is {value!r}; it must be true or false")
    return value


def checked_function(name: str, value: Any, of: str) -> Callable[..., Any] | None:
    """An option that is a function, or ``None``.

    Args:
        name: Its name.
        value: What was given.
        of: What the function takes, for the message.

    Raises:
        UsageError: It cannot be called.
    """
    if value is not None and not callable(value):
        raise UsageError(f"{name} is {value!r}; it must be a function of {of}")
    return value  # type: ignore[no-any-return]


def checked_texts(name: str, value: Any) -> tuple[str, ...]:
    """A text, or a list of texts, as a tuple.

    Raises:
        UsageError: It is something else; a text is empty, or holds half a character.
    """
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


def checked_words(value: Any) -> tuple[str, ...]:
    """Bad words, as a tuple.

    Raises:
        UsageError: They are no texts, or one is too long.
    """
    words = checked_texts("bad_words", value)
    for word in words:
        if (size := len(word.encode())) > LONGEST_BAD_WORD:
            raise UsageError(
                f"bad_words has {word[:40]!r} of {size} bytes; each may have at most "
                f"{LONGEST_BAD_WORD}, since a stream remembers only its latest text"
            )
    return words


def checked_choices(value: Any) -> tuple[str, ...] | None:
    """Choices, as a tuple; ``None`` lets any text be written.

    Raises:
        UsageError: They are no texts, or none at all, or one begins another.
    """
    if value is None:
        return None
    choices = checked_texts("choices", value)
    if not choices:
        raise UsageError(
            f"choices is {value!r}, so that no text could be written; give at least one, or leave "
            "it out"
        )
    ordered = sorted(set(choices))
    # Sorted, a text comes directly before the texts that begin with it.
    for first, second in itertools.pairwise(ordered):
        if second.startswith(first):
            raise UsageError(
                f"choices has {first!r}, which is the beginning of {second!r}, so its end is "
                "ambiguous; add the same ending, such as a line break, to all choices"
            )
    return choices


def check_escapes(regex: str | None) -> None:
    """Refuse a regular expression that ends in the middle of an escape: llguidance would drop it.

    Raises:
        UsageError: It does.
    """
    if regex is not None and (len(regex) - len(regex.rstrip("\\"))) % 2:
        raise UsageError(
            f"regex ends with a lone backslash, ...{regex[-20:]!r}; write two for a backslash, or "
            "what it is to escape"
        )


def checked_tokens(name: str, value: Any) -> tuple[int, ...]:
    """A token, or a list of tokens, as a tuple; whether the model has them is not known here.

    Raises:
        UsageError: It is something else.
    """
    listed = (value,) if type(value) is int else value
    is_list = isinstance(listed, Sequence) and not isinstance(listed, str | bytes)
    tokens = tuple(map(plain, listed)) if is_list else (None,)
    if not all(type(token) is int and token >= 0 for token in tokens):
        raise UsageError(f"{name} is {value!r}; it must be a token's number or a list of them")
    return tokens


def checked_bias(value: Any) -> dict[int | str, float]:
    """What to add to which tokens.

    Raises:
        UsageError: It is no such mapping.
    """
    if not isinstance(value, Mapping):
        raise UsageError(f"logit_bias is {value!r}; it must map tokens to numbers")
    biases = {plain(token): plain(bias) for token, bias in value.items()}
    for token, bias in biases.items():
        if type(token) not in (int, str) or token == "":
            raise UsageError(f"logit_bias names the token {token!r}; give its number or its text")
        is_real = isinstance(bias, int | float) and not isinstance(bias, bool)
        if not is_real or not (abs(bias) <= _LARGEST or bias == -math.inf):
            raise UsageError(
                f"logit_bias adds {bias!r} to {token!r}; it must lie between -1e30 and 1e30, or be "
                "-inf"
            )
    return biases

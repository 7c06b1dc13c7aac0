"""The sampling options, named as in Hugging Face."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import numpy.typing as npt

from ..errors import UsageError
from ..scalars import plain
from . import param_checks as checks
from .json_schema import schema_text
from .param_checks import LONGEST_BAD_WORD
from .patterns import PATTERN_KINDS, Pattern

__all__ = ["CONSTRAINTS", "LONGEST_BAD_WORD", "SamplingParams"]

CONSTRAINTS = ("choices", *PATTERN_KINDS)
"""The options that say what may be written; one of them at most."""

LogitsFunction = Callable[[npt.NDArray[Any], npt.NDArray[Any]], npt.NDArray[Any]]


@dataclass(frozen=True)
class SamplingParams:
    r"""How to sample; names and meanings are Hugging Face's where it has them.

    The options apply in Hugging Face's order: bias, repetition penalty, frequency and presence
    penalty, repeated n-grams, bad words, the least length, your own processor, choices or pattern,
    temperature, top-k, top-p, min-p, typical-p, epsilon and eta cutoff.

    Attributes:
        temperature: Divides the logits; 0 always takes the likeliest token.
        top_k: Keep the k likeliest tokens; 0 keeps all.
        top_p: Keep the smallest set of likeliest tokens whose probabilities add up to at least
            this; 1 keeps all.
        seed: Seed of the random numbers; ``None`` draws a fresh one.
        min_p: Keep tokens at least this fraction as likely as the likeliest; 0 keeps all.
        typical_p: Keep the smallest set of tokens whose surprise is nearest to the expected
            surprise and whose probabilities add up to at least this; 1 keeps all.
        epsilon_cutoff: Leave out tokens less likely than this; 0 keeps all.
        eta_cutoff: Leave out tokens less likely than this, or than its root times the exponential
            of the negative entropy, whichever is less; 0 keeps all.
        repetition_penalty: Divides the positive and multiplies the negative logits of tokens that
            the stream has read or written; 1 changes nothing. Logits are log-probabilities here.
        frequency_penalty: Subtracted from a token's logit for each time it was generated in this
            call.
        presence_penalty: Subtracted from a token's logit if it was generated in this call.
        penalty_window: Let all three penalties count the last so many tokens that the stream has
            read or written, and no others; 0 leaves each its own count.
        no_repeat_ngram_size: Never write so many tokens in a row twice; 0 allows it.
        logit_bias: Added to the logits of tokens, keyed by a token's number or a text; ``-inf``
            forbids it. Of a text of several tokens, the last gets the bias, where the others stand
            before it.
        bad_words: Texts that are never written, however they are tokenized.
        logits_processor: A function of the last tokens, ``[T]``, and the logits, ``[V]``, that
            returns the logits to go on with. It must depend on nothing else: a draw that fails is
            repeated.
        choices: Write exactly one of these texts, at least one; ``None`` allows any.
        regex: Write only text that this regular expression matches as a whole, in the syntax of
            Rust's ``regex``; the text ends where nothing may follow. Requires ``rillet[grammar]``.
        grammar: Write only text that this grammar allows, in llguidance's variant of Lark's syntax
            or in llama.cpp's GBNF. Requires ``rillet[grammar]``.
        json_schema: Write one JSON document that this schema accepts, within ``max_new_tokens``: a
            dictionary, JSON text, or a path. Requires ``rillet[grammar]``.
        unicode_classes: Whether ``\d``, ``\w`` and ``\s`` of a pattern mean all of Unicode's, or
            ASCII's; ``None`` means ASCII's in a model of bytes, and Unicode's otherwise.
        max_new_tokens: Maximum number of tokens to generate.
        min_new_tokens: Tokens before which no stop string or stop token ends the generation.
        max_time: Seconds after which the generation ends, with the token that is under way.
        stop: Texts that end the generation; they are not part of the result.
        stop_token_ids: Tokens that end the generation; their text is not part of the result.
        include_stop: Whether what ended the generation is part of the result after all.
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
    epsilon_cutoff: float = field(default=0.0, kw_only=True)
    eta_cutoff: float = field(default=0.0, kw_only=True)
    repetition_penalty: float = field(default=1.0, kw_only=True)
    frequency_penalty: float = field(default=0.0, kw_only=True)
    presence_penalty: float = field(default=0.0, kw_only=True)
    penalty_window: int = field(default=0, kw_only=True)
    no_repeat_ngram_size: int = field(default=0, kw_only=True)
    logit_bias: Mapping[int | str, float] = field(default_factory=dict, kw_only=True, hash=False)
    bad_words: Sequence[str] = field(default=(), kw_only=True)
    logits_processor: LogitsFunction | None = field(default=None, kw_only=True)
    choices: Sequence[str] | None = field(default=None, kw_only=True)
    regex: str | None = field(default=None, kw_only=True)
    grammar: str | None = field(default=None, kw_only=True)
    json_schema: Mapping[str, Any] | bool | str | PathLike[str] | None = field(
        default=None, kw_only=True
    )
    unicode_classes: bool | None = field(default=None, kw_only=True)
    max_new_tokens: int = field(default=200, kw_only=True)
    min_new_tokens: int = field(default=0, kw_only=True)
    max_time: float | None = field(default=None, kw_only=True)
    stop: Sequence[str] = field(default=(), kw_only=True)
    stop_token_ids: Sequence[int] = field(default=(), kw_only=True)
    include_stop: bool = field(default=False, kw_only=True)
    top_logprobs: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        values = {name: plain(getattr(self, name)) for name in self.__dataclass_fields__}
        checks.check_numbers(values)
        values["stop"] = checks.checked_texts("stop", values["stop"])
        values["bad_words"] = checks.checked_words(values["bad_words"])
        values["choices"] = checks.checked_choices(values["choices"])
        values["stop_token_ids"] = checks.checked_tokens("stop_token_ids", values["stop_token_ids"])
        values["logit_bias"] = checks.checked_bias(values["logit_bias"])
        checks.checked_flag("include_stop", values["include_stop"])
        if values["unicode_classes"] is not None:
            checks.checked_flag("unicode_classes", values["unicode_classes"])
        checks.checked_function(
            "logits_processor", values["logits_processor"], "the tokens and the logits"
        )
        for name in ("regex", "grammar"):
            value = values[name]
            if value is not None and (not isinstance(value, str) or not value):
                raise UsageError(f"{name} is {value!r}; it must be a non-empty text")
        checks.check_escapes(values["regex"])
        if values["json_schema"] is not None:
            values["json_schema"] = schema_text(values["json_schema"])
        constraints = [name for name in CONSTRAINTS if values[name]]
        if len(constraints) > 1:
            raise UsageError(
                f"{' and '.join(constraints)} each say what may be written; give only one of them"
            )
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def with_seed(self, seed: int) -> SamplingParams:
        """The same options with another seed, 0 or above; the others are not checked again."""
        params = copy.copy(self)
        object.__setattr__(params, "seed", seed)
        return params

    @property
    def filters(self) -> tuple[int, float, float, float, float, float]:
        """The options that leave tokens out, in the order in which they do."""
        return (
            self.top_k,
            self.top_p,
            self.min_p,
            self.typical_p,
            self.epsilon_cutoff,
            self.eta_cutoff,
        )

    @property
    def penalized(self) -> list[str]:
        """The penalties in use."""
        penalties = {
            "repetition_penalty": self.repetition_penalty != 1,
            "frequency_penalty": self.frequency_penalty != 0,
            "presence_penalty": self.presence_penalty != 0,
        }
        return [name for name, is_used in penalties.items() if is_used]

    @property
    def processed(self) -> list[str]:
        """The options in use that change logits before the temperature."""
        names = ("logit_bias", "no_repeat_ngram_size", "bad_words", "logits_processor")
        used = [name for name in (*names, *CONSTRAINTS) if getattr(self, name)]
        has_least = self.min_new_tokens > 0 and len(self.stop_token_ids) > 0
        return [*self.penalized, *used, *(["min_new_tokens"] if has_least else [])]

    @property
    def looks_back(self) -> bool:
        """Whether an option needs the last tokens of the stream."""
        has_texts = any(isinstance(key, str) for key in self.logit_bias)
        has_window = self.penalty_window > 0 and bool(self.penalized)
        has_function = self.logits_processor is not None
        return has_texts or has_window or has_function or self.no_repeat_ngram_size > 0

    def pattern(self, of_bytes: bool) -> Pattern | None:
        """The pattern that the text must follow, if there is one.

        Args:
            of_bytes: Whether the model writes bytes.
        """
        for kind in PATTERN_KINDS:
            if (text := getattr(self, kind)) is not None:
                unicode = not of_bytes if self.unicode_classes is None else self.unicode_classes
                return Pattern(kind, text, unicode, self.max_new_tokens)
        return None

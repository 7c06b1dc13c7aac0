"""Text constrained by a regular expression or a grammar, through llguidance."""

from __future__ import annotations

import functools
import math
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UsageError
from ..tokenizer import Tokenizer

__all__ = ["Grammar"]

_SPECIAL_PREFIX = b"\xff"
"""The byte by which llguidance recognises a token that is not text."""


class Grammar:
    """Restricts the text to what a regular expression or a grammar allows.

    The text ends where nothing may follow: a model has no token that would end it earlier. A
    pattern without such an end, such as ``[0-9]+``, continues up to the limit of tokens.

    Args:
        pattern: A regular expression in the syntax of Rust's ``regex``, or a grammar in
            llguidance's variant of Lark's syntax.
        is_regex: Whether ``pattern`` is a regular expression.
        tokenizer: The model's tokenizer.

    Raises:
        UsageError: The pattern is invalid, or llguidance is not installed.
    """

    finish_reason = "grammar"

    def __init__(self, pattern: str, is_regex: bool, tokenizer: Tokenizer) -> None:
        llguidance = _import_llguidance()
        if any("\ud800" <= character <= "\udfff" for character in pattern):
            raise UsageError(
                f"the pattern {pattern!r} contains half a surrogate pair; write the whole character"
            )
        matcher = llguidance.LLMatcher
        compile_pattern = matcher.grammar_from_regex if is_regex else matcher.grammar_from_lark
        self._new_matcher = functools.partial(
            matcher, _wrapped(tokenizer), compile_pattern(pattern), log_level=0
        )
        self._matcher = self._new_matcher()
        self._written: list[int] = []
        self._vocab_size = tokenizer.vocab_size
        if self._matcher.is_error():
            name = "regex" if is_regex else "grammar"
            reason = " ".join(str(self._matcher.get_error()).split())
            raise UsageError(f"{name} is {pattern!r}, which is not valid: {reason}")

    @property
    def done(self) -> bool:
        """Whether the text is complete: nothing may follow it."""
        return bool(self._matcher.is_stopped())

    def apply(self, logits: npt.NDArray[np.float64]) -> None:
        """Mask the logits ``[V]`` of the tokens that the pattern forbids, in place."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        allowed = np.unpackbits(bits, bitorder="little")[: self._vocab_size]
        logits[allowed == 0] = -math.inf

    def accept(self, token: int) -> None:
        """Append a token to the text.

        Raises:
            UsageError: The pattern needs more work than llguidance allows.
        """
        if not self._matcher.consume_token(token):
            reason = str(self._matcher.get_error()).partition("\n")[0]
            raise UsageError(f"the text cannot follow the pattern any further: {reason}")
        self._written.append(token)

    def snapshot(self) -> Any:
        """The tokens written so far."""
        return list(self._written)

    def restore(self, value: Any) -> None:
        """Return to the text that :meth:`snapshot` returned.

        Raises:
            ValueError: The pattern does not allow that text.
        """
        written = [int(token) for token in value]
        if not all(0 <= token < self._vocab_size for token in written):
            raise ValueError("the text contains a token that does not exist")
        # Not reset(): a matcher that has hit a dead end keeps its error.
        self._matcher = self._new_matcher()
        if written and not self._matcher.consume_tokens(written):
            raise ValueError("the pattern does not allow the text")
        self._written = written


class _Vocabulary:
    """A tokenizer in llguidance's form: the bytes of every token, and a token for the end."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        end = tokenizer.vocab_size
        self.tokens = [*tokenizer.token_bytes, _SPECIAL_PREFIX + b"<end>"]
        self.eos_token_id, self.bos_token_id, self.special_token_ids = end, None, [end]
        self._encode = tokenizer.encode

    def __call__(self, text: str) -> list[int]:
        """Encode a text."""
        return self._encode(text)


_cache: weakref.WeakKeyDictionary[Tokenizer, Any] = weakref.WeakKeyDictionary()


def _wrapped(tokenizer: Tokenizer) -> Any:
    """The tokenizer in llguidance's form, built once."""
    wrapped = _cache.get(tokenizer)
    if wrapped is None:
        llguidance = _import_llguidance()
        vocabulary = llguidance.TokenizerWrapper(_Vocabulary(tokenizer))
        wrapped = _cache[tokenizer] = llguidance.LLTokenizer(vocabulary)
    return wrapped


def _import_llguidance() -> Any:
    try:
        import llguidance
    except ImportError as error:
        raise UsageError(
            "regex and grammar need llguidance, which is not installed; install it with: "
            "pip install 'rillet[grammar]'"
        ) from error
    return llguidance

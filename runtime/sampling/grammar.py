"""Writing that keeps to a regular expression or a grammar, through llguidance."""

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

_NOT_TEXT = b"\xff"
"""What llguidance marks a token with that is no text."""


class Grammar:
    """Lets only text be written that a regular expression or a grammar allows.

    The text ends where nothing may follow: a model has no token that says so earlier. A pattern
    without such an end, as ``[0-9]+``, goes on up to the limit of tokens.

    Args:
        pattern: The regular expression, in the syntax of Rust's ``regex``, or the grammar, in
            llguidance's form of Lark's.
        is_regex: Which of them it is.
        tokenizer: The tokenizer.

    Raises:
        UsageError: The pattern is none, or llguidance is not installed.
    """

    finish_reason = "grammar"

    def __init__(self, pattern: str, is_regex: bool, tokenizer: Tokenizer) -> None:
        library = _library()
        if any("\ud800" <= character <= "\udfff" for character in pattern):
            raise UsageError(f"the pattern {pattern!r} has half a character; write it out")
        matcher = library.LLMatcher
        make = matcher.grammar_from_regex if is_regex else matcher.grammar_from_lark
        self._new_matcher = functools.partial(
            matcher, _tokens(tokenizer), make(pattern), log_level=0
        )
        self._matcher = self._new_matcher()
        self._written: list[int] = []
        self._vocab_size = tokenizer.vocab_size
        if self._matcher.is_error():
            name = "regex" if is_regex else "grammar"
            reason = " ".join(str(self._matcher.get_error()).split())
            raise UsageError(f"{name} is {pattern!r}, which cannot be used: {reason}")

    @property
    def done(self) -> bool:
        """Whether the text is complete and nothing may follow."""
        return bool(self._matcher.is_stopped())

    def apply(self, logits: npt.NDArray[np.float64]) -> None:
        """Change logits ``[V]`` in place."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        allowed = np.unpackbits(bits, bitorder="little")[: self._vocab_size]
        logits[allowed == 0] = -math.inf

    def accept(self, token: int) -> None:
        """Go on by a token.

        Raises:
            UsageError: The pattern takes more work than llguidance allows.
        """
        if not self._matcher.consume_token(token):
            reason = str(self._matcher.get_error()).partition("\n")[0]
            raise UsageError(f"the text cannot be kept to the pattern any longer: {reason}")
        self._written.append(token)

    def snapshot(self) -> Any:
        """The tokens written."""
        return list(self._written)

    def restore(self, value: Any) -> None:
        """Go back to what :meth:`snapshot` returned.

        Raises:
            ValueError: The pattern does not allow it.
        """
        written = [int(token) for token in value]
        if not all(0 <= token < self._vocab_size for token in written):
            raise ValueError("a token that does not exist was written")
        # A new one: a matcher that has met a dead end stays in its error.
        self._matcher = self._new_matcher()
        if written and not self._matcher.consume_tokens(written):
            raise ValueError("what was written is not what the pattern allows")
        self._written = written


class _Words:
    """A tokenizer as llguidance reads one: the bytes of every token, and one token for the end."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        end = tokenizer.vocab_size
        self.tokens = [*tokenizer.token_bytes, _NOT_TEXT + b"<end>"]
        self.eos_token_id, self.bos_token_id, self.special_token_ids = end, None, [end]
        self._encode = tokenizer.encode

    def __call__(self, text: str) -> list[int]:
        """Encode a text."""
        return self._encode(text)


_made: weakref.WeakKeyDictionary[Tokenizer, Any] = weakref.WeakKeyDictionary()


def _tokens(tokenizer: Tokenizer) -> Any:
    """The tokenizer for llguidance, made once."""
    found = _made.get(tokenizer)
    if found is None:
        library = _library()
        words = library.TokenizerWrapper(_Words(tokenizer))
        found = _made[tokenizer] = library.LLTokenizer(words)
    return found


@functools.cache
def _library() -> Any:
    try:
        import llguidance
    except ImportError as error:
        raise UsageError(
            "regex and grammar need llguidance, which is not installed; install it with: "
            "pip install 'rillet[grammar]'"
        ) from error
    return llguidance

"""llguidance, and a model's tokenizer in its form."""

from __future__ import annotations

import weakref
from typing import Any

from ..errors import UsageError
from ..tokenizer import Tokenizer

__all__ = ["import_llguidance", "matcher_of", "reason_of"]

_FUEL = 10_000_000
"""Work that llguidance may do for a token: seconds at the very worst. Bad words need most of it."""

_SPECIAL_PREFIX = b"\xff"
"""The byte by which llguidance recognises a token that is not text."""


def import_llguidance() -> Any:
    """The package.

    Raises:
        UsageError: It is not installed.
    """
    try:
        import llguidance
    except ImportError as error:
        raise UsageError(
            "regex, grammar and json_schema need llguidance, which is not installed; install it "
            "with: pip install 'rillet[grammar]'"
        ) from error
    return llguidance


def matcher_of(compiled: str, tokenizer: Tokenizer) -> Any:
    """A matcher before the first token; in an error state if the grammar is not valid."""
    llguidance = import_llguidance()
    limits = llguidance.LLParserLimits(step_lexer_fuel=_FUEL, initial_lexer_fuel=_FUEL)
    return llguidance.LLMatcher(_wrapped(tokenizer), compiled, log_level=0, limits=limits)


def reason_of(matcher: Any) -> str:
    """Why a matcher is in an error state, in one line, without the excerpt of its grammar."""
    reason = " ".join(str(matcher.get_error()).split("\n   1 | ")[0].split())
    return reason.partition("failed to compile JSON schema: ")[2] or reason


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
        llguidance = import_llguidance()
        vocabulary = llguidance.TokenizerWrapper(_Vocabulary(tokenizer))
        wrapped = _cache[tokenizer] = llguidance.LLTokenizer(vocabulary)
    return wrapped

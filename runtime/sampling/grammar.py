"""Text constrained by a regular expression or a grammar, through llguidance."""

from __future__ import annotations

import dataclasses
import json
import math
import weakref
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from ..errors import UsageError
from ..tokenizer import Tokenizer
from .lookahead import Lookahead, Path, allowed
from .writable import Limits, Writable

__all__ = ["Grammar"]

_FUEL = 10_000_000
"""Work that llguidance may do for a token: seconds at the very worst. Bad words need most of it."""

_SPECIAL_PREFIX = b"\xff"
"""The byte by which llguidance recognises a token that is not text."""


class Grammar:
    """Restricts the text to what a regular expression or a grammar allows.

    The text ends where nothing may follow: a model has no token that would end it earlier. A
    pattern without such an end, such as ``[0-9]+``, continues up to the limit of tokens.

    A token is only allowed if the text can still be completed, with characters that the model
    knows and without bad words. For a regular expression, llguidance sees to that: the pattern is
    intersected with the texts that can be written. A grammar cannot be, so an end is looked for.

    Args:
        pattern: A regular expression in the syntax of Rust's ``regex``, or a grammar in
            llguidance's variant of Lark's syntax.
        is_regex: Whether ``pattern`` is a regular expression.
        tokenizer: The model's tokenizer.
        limits: What else restricts the text.

    Raises:
        UsageError: The pattern is invalid, the model can write no text that it allows, or
            llguidance is not installed.
    """

    finish_reason = "grammar"

    def __init__(
        self, pattern: str, is_regex: bool, tokenizer: Tokenizer, limits: Limits | None = None
    ) -> None:
        self._matcher_class = _import_llguidance().LLMatcher
        if any("\ud800" <= character <= "\udfff" for character in pattern):
            raise UsageError(
                f"the pattern {pattern!r} contains half a surrogate pair; write the whole character"
            )
        self._pattern, self._is_regex, self._tokenizer = pattern, is_regex, tokenizer
        self._limits = limits or Limits()
        self._begin(self._limits)

    def _begin(self, limits: Limits) -> None:
        """Stand before the first token."""
        self._limits = limits
        writable = Writable(self._tokenizer, limits)
        self._usable = writable.tokens
        is_limited = writable.characters is not None or bool(limits.bad_words)
        compiled = self._compile()
        self._lookahead: Lookahead | None = None
        if is_limited and self._is_regex:
            compiled = _intersected(self._matcher_class, compiled, writable, limits)
        elif is_limited:
            self._lookahead = Lookahead(self._tokenizer, writable, limits)
        self._compiled = compiled
        self._follow([], None)

    def _compile(self) -> str:
        """The pattern for llguidance.

        Raises:
            UsageError: It is not valid.
        """
        llmatcher = self._matcher_class
        read = llmatcher.grammar_from_regex if self._is_regex else llmatcher.grammar_from_lark
        compiled = str(read(self._pattern))
        matcher = self._matcher(compiled)
        if matcher.is_error():
            reason = " ".join(str(matcher.get_error()).split())
            raise UsageError(f"{self._name} is {self._pattern!r}, which is not valid: {reason}")
        return compiled

    @property
    def _name(self) -> str:
        return "regex" if self._is_regex else "grammar"

    def _matcher(self, compiled: str) -> Any:
        limits = _import_llguidance().LLParserLimits(
            step_lexer_fuel=_FUEL, initial_lexer_fuel=_FUEL
        )
        return self._matcher_class(_wrapped(self._tokenizer), compiled, log_level=0, limits=limits)

    def _follow(self, written: list[int], path: Path | None) -> None:
        """Stand after some tokens.

        Raises:
            ValueError: The pattern does not allow them.
            UsageError: They can never become a whole text.
        """
        # Not reset(): a matcher that has hit a dead end keeps its error.
        matcher = self._matcher(self._compiled)
        if written and not matcher.consume_tokens(written):
            raise ValueError("the pattern does not allow the text")
        self._state, self._written = matcher, list(written)
        self._text = b"".join(self._tokenizer.token_bytes[token] for token in written)
        self._path: Path = ()
        if self._lookahead is not None:
            found = path if path is not None else self._lookahead.first(matcher, self._text)
            if found is None:
                self._refuse()
            self._path = found or ()
        self._look()

    def _look(self) -> None:
        """Find out which tokens may follow, and whether any may."""
        self._paths: dict[int, Path] = {}
        self._dead: set[int] = set()  # apart, so that asking changes no later draw
        self._fruitless: set[bytes] = set()
        self._allowed = allowed(self._state, self._usable)
        if self._lookahead is not None and not self._path:
            # The text may end here, but it does so only where nothing can follow.
            follows = (t for t in map(int, np.flatnonzero(self._allowed)) if self.allows(t))
            if (token := next(follows, None)) is not None:
                self._path = (token, *self._paths[token])
        if self.done and not self._state.is_accepting():
            self._refuse()

    def allows(self, token: int) -> bool:
        """Whether the text can still be completed after a token that :meth:`apply` let through.

        Looking for an end takes time, so this is asked of tokens that are drawn, not of all.
        """
        if not self._allowed[token] or token in self._dead:
            return False
        if self._lookahead is not None and token not in self._paths:
            path = self._lookahead.after(
                token, self._state, self._text, self._path, self._fruitless
            )
            if path is None:
                self._dead.add(token)
                return False
            self._paths[token] = path
        return True

    def _refuse(self) -> NoReturn:
        if self._written:
            reason = str(self._state.get_error()).partition("\n")[0]
            raise UsageError(f"the text cannot follow the pattern any further: {reason}")
        raise UsageError(
            f"{self._name} is {self._pattern!r}, and none of its texts can be written: this model "
            f"lacks characters that they need{self._limits.also}"
        )

    @property
    def done(self) -> bool:
        """Whether the text is complete: nothing may follow it."""
        return bool(self._allowed.sum() == len(self._dead))

    def apply(self, logits: npt.NDArray[np.float64]) -> None:
        """Mask the logits ``[V]`` of the tokens that the pattern forbids, in place."""
        logits[~self._allowed] = -math.inf

    def accept(self, token: int) -> None:
        """Append a token to the text.

        Raises:
            UsageError: The pattern needs more work than llguidance allows.
        """
        is_allowed = self.allows(token)
        self._path = self._paths.get(token, ())
        self._written.append(token)
        self._text += self._tokenizer.token_bytes[token]
        if not is_allowed or not self._state.consume_token(token):
            self._refuse()
        self._look()

    def snapshot(self) -> Any:
        """The tokens written so far, and what the rest depends on."""
        return {
            "written": list(self._written),
            "path": list(self._path),
            "before": self._limits.before.hex(),
        }

    def restore(self, value: Any) -> None:
        """Return to the text that :meth:`snapshot` returned.

        Raises:
            ValueError: The pattern does not allow that text.
        """
        value = value if isinstance(value, dict) else {"written": value}  # of earlier versions
        written = [int(token) for token in value["written"]]
        path = [int(token) for token in value["path"]] if "path" in value else None
        if not all(0 <= token < self._usable.size for token in (*written, *(path or ()))):
            raise ValueError("the text contains a token that does not exist")
        before = bytes.fromhex(value.get("before", ""))
        if before != self._limits.before:
            self._begin(dataclasses.replace(self._limits, before=before))
        self._follow(written, None if path is None else tuple(path))


def _intersected(matcher_class: Any, compiled: str, writable: Writable, limits: Limits) -> str:
    """A regular expression for those of its texts that can be written."""
    (grammar,) = json.loads(compiled)["grammars"]
    terms = [grammar["lark_grammar"].removeprefix("start:"), f"/{writable.pattern}/"]
    # One alternation each: a term for each word would multiply their states.
    if words := [_literal(word) for word in limits.bad_words]:
        terms.append(f"~/(?s:.*)({'|'.join(words)})(?s:.*)/")
    begun = [
        _literal(word[cut:])
        for word in limits.bad_words
        for cut in range(1, len(word))
        if limits.before.endswith(word[:cut].encode())
    ]
    if begun:
        terms.append(f"~/({'|'.join(begun)})(?s:.*)/")
    return str(matcher_class.grammar_from_lark(f"start: TEXT\nTEXT: {' & '.join(terms)}"))


def _literal(text: str) -> str:
    return "".join(f"\\x{{{ord(character):x}}}" for character in text)


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

"""Text constrained by a regular expression, a grammar or a JSON schema, through llguidance."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from ..errors import UsageError
from ..tokenizer import Tokenizer
from .guidance import import_llguidance, matcher_of, reason_of
from .json_ends import JsonEnds
from .json_schema import STRUCTURE, characters_of_patterns
from .lookahead import Lookahead, Path, allowed
from .patterns import Pattern
from .writable import Limits, Writable

__all__ = ["Grammar"]

_NUMERIC = tuple(bytes([byte]) for byte in b"-+.eE0123456789")
"""Bytes of a number, which may go on after any of them."""


class Grammar:
    """Restricts the text to what a regular expression, a grammar or a JSON schema allows.

    The text ends where nothing may follow: a model has no token that would end it earlier. A
    pattern without such an end, such as ``[0-9]+``, continues up to the limit of tokens.

    A token is only allowed if the text can still be completed, with characters that the model
    knows and without bad words. For a regular expression, llguidance sees to that: the pattern is
    intersected with the texts that can be written. A grammar cannot be, so an end is looked for.
    For a JSON schema it always is, and a token is only allowed if that end lies within the limit.

    Args:
        pattern: What to follow.
        tokenizer: The model's tokenizer.
        limits: What else restricts the text.

    Raises:
        UsageError: The pattern is invalid, the model can write no text that it allows, or none
            within the limit; or llguidance is not installed.
    """

    finish_reason = "grammar"

    def __init__(
        self, pattern: Pattern, tokenizer: Tokenizer, limits: Limits | None = None
    ) -> None:
        self._matcher_class = import_llguidance().LLMatcher
        if any("\ud800" <= character <= "\udfff" for character in pattern.text):
            raise UsageError(
                f"the pattern {pattern.text!r} contains half a surrogate pair; write the whole "
                "character"
            )
        self._pattern, self._tokenizer = pattern, tokenizer
        self._is_json, self._limit = pattern.kind == "json_schema", pattern.limit
        self._begin(limits or Limits())

    def _begin(self, limits: Limits) -> None:
        """Stand before the first token."""
        self._limits = limits
        writable = Writable(self._tokenizer, limits)
        self._usable, self._characters = writable.tokens, writable.characters
        is_limited = writable.characters is not None or bool(limits.bad_words)
        compiled = self._pattern.compiled(self._matcher_class)
        self._fresh = self._checked(compiled)
        self._lookahead: Lookahead | None = None
        if self._is_json:
            likely = characters_of_patterns(self._pattern.text)
            ends = JsonEnds(self._tokenizer, writable, limits, likely)
            self._lookahead = Lookahead(self._tokenizer, writable, limits, ends.find)
        elif is_limited and self._pattern.kind == "regex":
            compiled = _intersected(self._matcher_class, compiled, writable, limits)
            self._fresh = matcher_of(compiled, self._tokenizer)
        elif is_limited:
            self._lookahead = Lookahead(self._tokenizer, writable, limits)
        self._follow([], None)

    def _checked(self, compiled: str) -> Any:
        """A matcher of the pattern.

        Raises:
            UsageError: The pattern is not valid.
        """
        matcher = matcher_of(compiled, self._tokenizer)
        if matcher.is_error():
            raise UsageError(
                f"{self._pattern.kind} is {self._pattern.shown}, which is not valid: "
                f"{reason_of(matcher)}"
            )
        return matcher

    def _follow(self, written: list[int], path: Path | None) -> None:
        """Stand after some tokens.

        Raises:
            ValueError: The pattern does not allow them.
            UsageError: They can never become a whole text.
        """
        # Not reset(): a matcher that has hit a dead end keeps its error.
        matcher = self._fresh.deep_copy()
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
        if self._is_json and not written and len(self._path) > self._limit:
            raise UsageError(
                f"json_schema takes at least {len(self._path)} tokens as far as we can see, and "
                f"max_new_tokens is {self._limit}; give it more"
            )
        self._look()

    def extend(self, limit: int) -> None:
        """Let the text have so many tokens from its beginning."""
        self._limit = limit
        if self._is_json:
            self._look()

    def _look(self) -> None:
        """Find out which tokens may follow, and whether any may."""
        self._paths: dict[int, Path] = {}
        self._dead: set[int] = set()  # apart, so that asking changes no later draw
        self._fruitless: set[bytes] = set()
        self._allowed = allowed(self._state, self._usable)
        self._is_whole = self._state.is_accepting() and self._is_ended()
        if self._lookahead is not None and not self._path and not self._is_whole:
            # The text may end here, but it does so only where nothing can follow.
            follows = (t for t in map(int, np.flatnonzero(self._allowed)) if self.allows(t))
            if (token := next(follows, None)) is not None:
                self._path = (token, *self._paths[token])
        if self.done and not self._state.is_accepting():
            self._refuse()

    def _is_ended(self) -> bool:
        """Whether a JSON document that is whole ends here, since only blanks could follow."""
        if not self._is_json:
            return False
        if len(self._written) >= self._limit or self._text[-1:] not in _NUMERIC:
            return True
        follows = (self._tokenizer.token_bytes[token] for token in np.flatnonzero(self._allowed))
        return not any(text[:1] in _NUMERIC for text in follows)

    def allows(self, token: int) -> bool:
        """Whether the text can still be completed after a token that :meth:`apply` let through.

        Looking for an end takes time, so this is asked of tokens that are drawn, not of all.
        """
        if not self._allowed[token] or token in self._dead:
            return False
        if self._lookahead is not None and token not in self._paths:
            room = self._limit - len(self._written) - 1 if self._is_json else None
            path = self._lookahead.after(
                token, self._state, self._text, self._path, self._fruitless, room
            )
            if path is None or not self._has_room(token, path):
                self._dead.add(token)
                return False
            self._paths[token] = path
        return True

    def _has_room(self, token: int, path: Path) -> bool:
        """Whether a JSON document that goes on with a token and ends with a path is short enough.

        The path that is known already always is: the limit may have been lowered since.
        """
        is_short = len(self._written) + 1 + len(path) <= self._limit
        return is_short or not self._is_json or (token, *path) == self._path

    def _refuse(self) -> NoReturn:
        if self._written:
            reason = str(self._state.get_error()).partition("\n")[0]
            raise UsageError(f"the text cannot follow the pattern any further: {reason}")
        if self._characters is None and not self._limits.also:
            raise UsageError(
                f"{self._pattern.kind} is {self._pattern.shown}, and none of its texts comes to an "
                "end within reach; give those that recur another choice, or less to write"
            )
        raise UsageError(
            f"{self._pattern.kind} is {self._pattern.shown}, and none of its texts can be written: "
            f"this model lacks characters that they need{self._lacking}{self._limits.also}"
        )

    @property
    def _lacking(self) -> str:
        """Characters that most JSON documents need and the model does not have."""
        if not self._is_json or self._characters is None:
            return ""
        lacking = [c for c in STRUCTURE if ord(c) not in self._characters]
        return f", such as {' '.join(lacking)}" if lacking else ""

    @property
    def done(self) -> bool:
        """Whether the text is complete: nothing may follow it."""
        return self._is_whole or bool(self._allowed.sum() == len(self._dead))

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
            "limit": self._limit,
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
        self._limit = int(value.get("limit", self._limit))
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

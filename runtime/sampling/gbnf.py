"""GBNF, the grammars of llama.cpp, written for llguidance.

llguidance splits a text into lexemes, each as long as it can be: a rule of letters would swallow
the letter that the next rule wants. So each character becomes a lexeme of its own here.
"""

from __future__ import annotations

import json
import re
from typing import NoReturn

from ..errors import UsageError

__all__ = ["is_gbnf", "lark_of_gbnf"]

_RULE = re.compile(r"^[ \t]*[\w-]+[ \t]*::=", re.MULTILINE)
_BLANK = re.compile(r"(?:[ \t]|#[^\r\n]*)*")
_BLANK_LINES = re.compile(r"(?:\s|#[^\r\n]*)*")
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_TIMES = re.compile(r"[*+?]|\{\s*(\d+)\s*(?:(,)\s*(\d*)\s*)?\}")
_ESCAPE = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))", re.DOTALL)
_SHORT = {"t": "\t", "r": "\r", "n": "\n", "\\": "\\", '"': '"', "[": "[", "]": "]"}

_MOST_TIMES = 2000
"""Repetitions that a grammar may ask for, as in llama.cpp."""

_DEEPEST = 100
"""Groups inside groups."""


def is_gbnf(grammar: str) -> bool:
    """Whether a grammar is GBNF: some line begins a rule with ``name ::=``."""
    return _RULE.search(grammar) is not None


def lark_of_gbnf(grammar: str) -> str:
    """A GBNF grammar in llguidance's form of Lark's syntax.

    Raises:
        UsageError: It is not valid.
    """
    return _Reader(grammar).read()


class _Reader:
    """Reads a grammar from left to right.

    Args:
        text: The grammar.
    """

    def __init__(self, text: str) -> None:
        self._text, self._at, self._depth = text, 0, 0
        self._numbers: dict[str, int] = {}
        self._used: dict[str, int] = {}  # where each is first named

    def read(self) -> str:
        """All rules, with the one named ``root`` to start from."""
        rules: dict[str, str] = {}
        self._skip(_BLANK_LINES)
        while self._at < len(self._text):
            name = self._name()
            if name in rules:
                self._fail(f"the rule {name} is written twice")
            self._skip(_BLANK)
            if not self._text.startswith("::=", self._at):
                self._fail("::= is missing")
            self._at += 3
            self._skip(_BLANK_LINES)
            rules[name] = self._alternatives(_BLANK)
            if self._peek() not in ("", "\r", "\n"):
                self._fail(f"{self._peek()!r} is unexpected")
            self._skip(_BLANK_LINES)
        if "root" not in rules:
            self._fail("there is no rule root")
        for name, place in self._used.items():
            if name not in rules:
                self._at = place
                self._fail(f"there is no rule {name}")
        lines = [f"{self._rule(name)}: {body}" for name, body in rules.items()]
        return "\n".join([f"start: {self._rule('root')}", *lines]) + "\n"

    def _rule(self, name: str) -> str:
        """A rule's name in Lark: GBNF's may have hyphens, and capitals mean nothing."""
        return f"r{self._numbers.setdefault(name, len(self._numbers))}"

    def _alternatives(self, blank: re.Pattern[str]) -> str:
        options = [self._sequence(blank)]
        while self._peek() == "|":
            self._at += 1
            self._skip(_BLANK_LINES)
            options.append(self._sequence(blank))
        return " | ".join(options)

    def _sequence(self, blank: re.Pattern[str]) -> str:
        parts = []
        while (part := self._part()) is not None:
            self._skip(blank)
            while (times := _TIMES.match(self._text, self._at)) is not None:
                part = f"({part}){self._times(times)}"
                self._at = times.end()
                self._skip(blank)
            parts.append(part)
        return " ".join(parts) or '""'

    def _part(self) -> str | None:
        """A literal, a class, a group, a name, or any character; ``None`` where a sequence ends."""
        first = self._peek()
        if first == '"':
            return self._literal()
        if first == "[":
            return self._class()
        if first == "(":
            return self._group()
        if first == ".":
            self._at += 1
            return "/(?s:.)/"
        if first in ("<", "!"):
            self._fail("tokens of another model's vocabulary mean nothing here; write their text")
        if _NAME.match(self._text, self._at) is None:
            return None
        place, name = self._at, self._name()
        self._used.setdefault(name, place)
        return self._rule(name)

    def _literal(self) -> str:
        self._at += 1
        characters = []
        while self._peek() != '"':
            characters.append(json.dumps(self._character(), ensure_ascii=False))
        self._at += 1
        return f"({' '.join(characters)})" if characters else '""'

    def _class(self) -> str:
        self._at += 1
        is_negated = self._peek() == "^"
        self._at += is_negated
        ranges = []
        while self._peek() != "]":
            first = last = self._character()
            if self._peek() == "-" and not self._text.startswith("-]", self._at):
                self._at += 1
                last = self._character()
            if last < first:
                self._fail(f"the range {first}-{last} is empty")
            ranges.append(f"\\x{{{ord(first):x}}}-\\x{{{ord(last):x}}}")
        self._at += 1
        if not ranges:
            self._fail("a class is empty")
        return f"/[{'^' * is_negated}{''.join(ranges)}]/"

    def _group(self) -> str:
        self._at, self._depth = self._at + 1, self._depth + 1
        if self._depth > _DEEPEST:
            self._fail(f"more than {_DEEPEST} groups lie inside one another")
        self._skip(_BLANK_LINES)
        inner = self._alternatives(_BLANK_LINES)
        if self._peek() != ")":
            self._fail("a ) is missing")
        self._at, self._depth = self._at + 1, self._depth - 1
        return f"({inner})"

    def _times(self, found: re.Match[str]) -> str:
        least, comma, most = found.groups()
        if least is None:
            return found[0]
        if max(int(least), int(most or 0)) > _MOST_TIMES:
            self._fail(f"{found[0]} repeats more than {_MOST_TIMES:,} times")
        return f"{{{least},{most}}}" if comma else f"{{{least}}}"

    def _character(self) -> str:
        """One character of a literal or a class, escaped or not."""
        if not self._peek():
            self._fail('a closing " or ] is missing')
        if self._peek() != "\\":
            self._at += 1
            return self._text[self._at - 1]
        found = _ESCAPE.match(self._text, self._at)
        if found is None or (found[4] and found[4] not in _SHORT):
            self._fail("there is an unknown escape")
        number = int(found[1] or found[2] or found[3] or "0", 16)
        if number > 0x10FFFF or 0xD800 <= number < 0xE000:
            self._fail(f"{found[0]} is no character")
        self._at = found.end()
        return _SHORT[found[4]] if found[4] else chr(number)

    def _name(self) -> str:
        found = _NAME.match(self._text, self._at)
        if found is None:
            self._fail("a rule's name is missing")
        self._at = found.end()
        return found[0]

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _skip(self, blank: re.Pattern[str]) -> None:
        found = blank.match(self._text, self._at)
        assert found is not None  # a blank may be empty
        self._at = found.end()

    def _fail(self, reason: str) -> NoReturn:
        line = self._text.count("\n", 0, self._at) + 1
        raise UsageError(f"grammar is GBNF that is not valid: line {line}: {reason}")

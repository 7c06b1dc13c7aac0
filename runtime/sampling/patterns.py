"""What a text must follow, in the form that llguidance reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from .ascii_classes import with_ascii_classes
from .gbnf import is_gbnf, lark_of_gbnf
from .json_schema import lark_of_schema

__all__ = ["PATTERN_KINDS", "Pattern", "PatternKind"]

PatternKind = Literal["regex", "grammar", "json_schema"]
PATTERN_KINDS: tuple[PatternKind, ...] = get_args(PatternKind)

_LONGEST_SHOWN = 200


@dataclass(frozen=True)
class Pattern:
    r"""A regular expression, a grammar or a JSON schema.

    Attributes:
        kind: Which; the name of the option.
        text: As the caller gave it.
        unicode: Whether ``\d``, ``\w`` and ``\s`` mean all of Unicode's, or ASCII's.
        limit: Tokens that the text may have.
    """

    kind: PatternKind
    text: str
    unicode: bool
    limit: int

    @property
    def shown(self) -> str:
        """The pattern for a message, cut if it is long."""
        cut = self.text[:_LONGEST_SHOWN]
        return repr(cut) + ("..." if len(self.text) > len(cut) else "")

    def compiled(self, matcher_class: Any) -> str:
        """The pattern for llguidance, which may not be valid.

        Raises:
            UsageError: It is a GBNF grammar or a schema that cannot be followed.
        """
        if self.kind == "json_schema":
            return str(matcher_class.grammar_from_lark(lark_of_schema(self.text)))
        if self.kind == "grammar" and is_gbnf(self.text):
            return str(matcher_class.grammar_from_lark(lark_of_gbnf(self.text)))
        text = self.text if self.unicode else with_ascii_classes(self.text)
        if self.kind == "regex":
            return str(matcher_class.grammar_from_regex(text))
        return str(matcher_class.grammar_from_lark(text))

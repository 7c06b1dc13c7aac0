"""GBNF: llama.cpp's grammars, and what their texts are here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rillet.runtime import Model, UsageError, load

llguidance = pytest.importorskip(
    "llguidance", reason="llguidance is not installed: pip install rillet[grammar]"
)

from rillet.runtime.sampling.gbnf import is_gbnf, lark_of_gbnf  # noqa: E402
from rillet.runtime.sampling.guidance import matcher_of, reason_of  # noqa: E402

MODELS = Path(__file__).parents[2] / "models"

JSON = r"""
# As llama.cpp brings it.
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws

object ::=
  "{" ws (
            string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws

array  ::=
  "[" ws (
            value
    ("," ws value)*
  )? "]" ws

string ::=
  "\"" (
    [^"\\\x7F\x00-\x1F] |
    "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) # escapes
  )* "\"" ws

number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws

# Optional space: by convention, applied in this grammar after literal chars when allowed
ws ::= | " " | "\n" [ \t]{0,20}
"""
ARITHMETIC = r"""
root  ::= (expr "=" ws term "\n")+
expr  ::= term ([-+*/] term)*
term  ::= ident | num | "(" ws expr ")" ws
ident ::= [a-z] [a-z0-9_]* ws
num   ::= [0-9]+ ws
ws    ::= [ \t\n]*
"""
CASES = [
    # grammar, texts that it allows as a whole, beginnings that it does not allow
    (JSON, ['{"a": [1, -2.5e3, true, null], "b\\u00e9": {}}', "{}"], ["[", '{"a"}', "{,"]),
    (ARITHMETIC, ["a+1=2\n", "(x1 *y)=3\nz=z\n"], ["=", "a+="]),
    ('root ::= word "x"\nword ::= [a-z]+', ["abx", "xx", "xxx"], ["1"]),
    ('root ::= (word " ")* word "."\nword ::= [a-z]+', ["a.", "the cat sat."], [" a", "."]),
    ('root ::= "\\u0041" [\\u0042-\\u0044] "\\U0001F600\\x5A"', ["AC😀Z"], ["B", "AE"]),
    ("root ::= . .", ["\n\n", "é水"], []),
    ("root ::= [^a] [^\\n]", ["bé", "\na"], ["a", "b\n"]),
    ("root ::= [a&&b] [-x] [x-] [\\]] [/] [\\[^]", ["&-x]/^", "axx]/["], ["c"]),
    (
        'root ::= foo-bar fooBar foo_bar\nfoo-bar ::= "a"\nfooBar ::= "b"\nfoo_bar ::= "c"',
        ["abc"],
        ["b"],
    ),
    ('root ::= "a"{2} "b"{1,2} "c"{0,} "d"? "e"+', ["aabe", "aabbccdee"], ["ab", "aabbb"]),
    ('root ::= "x" | "y" |\n  "z"', ["x", "y", "z"], ["xy"]),
    ('root ::= "(" root ")" | ""', ["", "(())"], [")"]),
    ('root ::= root "a" | "b"', ["b", "baa"], ["a"]),
    ('root ::= ("a" # one\n "b") # two\n# three', ["ab"], ["b"]),
    ('root ::= "xyz" | [a-x] "q"', ["xyz", "xq", "aq"], ["yq"]),
]


@pytest.fixture(scope="module")
def bible() -> Model:
    return load(MODELS / "bible-nano", self_test=False)


@pytest.mark.parametrize(("grammar", "texts", "others"), CASES, ids=[c[0][:30] for c in CASES])
def test_it_allows_what_gbnf_allows(
    bible: Model, grammar: str, texts: list[str], others: list[str]
) -> None:
    assert is_gbnf(grammar)
    compiled = llguidance.LLMatcher.grammar_from_lark(lark_of_gbnf(grammar))
    matcher = matcher_of(compiled, bible.tokenizer)
    assert not matcher.is_error(), reason_of(matcher)
    for text in texts:
        reader = matcher.deep_copy()
        assert reader.consume_tokens(bible.tokenizer.encode(text)), text
        assert reader.is_accepting(), text
    for text in others:
        tokens = bible.tokenizer.encode(text)
        assert matcher.validate_tokens(tokens) < len(tokens), text


@pytest.mark.parametrize(
    ("grammar", "reason"),
    [
        ('root ::= "a', 'line 1: a closing " or ] is missing'),
        ("root ::= [a", 'a closing " or ] is missing'),
        ("root ::= []", "a class is empty"),
        ("root ::= [b-a]", "the range b-a is empty"),
        ('root ::= ("a"', "a [)] is missing"),
        ('root ::= "a" )', "'[)]' is unexpected"),
        ("\nroot ::= other", "line 2: there is no rule other"),
        ('other ::= "a"', "there is no rule root"),
        ('root ::= "a"\nroot ::= "b"', "line 2: the rule root is written twice"),
        ('root ::= "a"\nx = "b"', "::= is missing"),
        ('root ::= "\\q"', "there is an unknown escape"),
        ('root ::= "\\uD800"', "is no character"),
        ('root ::= "\\U00110000"', "is no character"),
        ('root ::= "a"{2001}', "repeats more than 2,000 times"),
        ("root ::= <think> . ", "another model's vocabulary"),
        ("root ::= !<[3]>", "another model's vocabulary"),
        ("root ::= " + "(" * 200, "more than 100 groups lie inside one another"),
        ('root ::= "a"\n::= "b"', "a rule's name is missing"),
    ],
)
def test_what_is_not_valid_is_refused(bible: Model, grammar: str, reason: str) -> None:
    with pytest.raises(UsageError, match=f"grammar is GBNF that is not valid: .*{reason}"):
        bible.generate("x", grammar=grammar)


def test_lark_is_still_lark() -> None:
    assert not is_gbnf('start: "a ::= b"\nA: /x ::= y/')
    assert not is_gbnf('start: x\nx: "root"')


def test_a_text_follows_it(bible: Model) -> None:
    texts = []
    for seed in range(8):
        stream = bible.stream("x", grammar=CASES[3][0], seed=seed, max_new_tokens=200)
        texts.append("".join(stream))
        if stream.finish_reason == "grammar":
            assert re.fullmatch(r"([a-z]+ )*[a-z]+\.", texts[-1])
        else:  # a sentence can always go on
            assert re.fullmatch(r"[a-z ]{200}", texts[-1])
    assert any(text.endswith(".") for text in texts)


@pytest.mark.parametrize("kind", ["regex", "grammar"])
def test_classes_mean_what_the_caller_says(bible: Model, kind: str) -> None:
    """ASCII in a model of bytes, and Unicode if that is asked for."""
    pattern = r"(\d|\w|[\s]){60}" if kind == "regex" else r"start: /(\d|\w|[\s]){60}/"
    wild = {"temperature": 50.0, "seed": 1, "max_new_tokens": 400}
    assert re.fullmatch(r"(?a:[\d\w\s]{60})", bible.generate("x", **{kind: pattern}, **wild))
    text = bible.generate("x", **{kind: pattern}, unicode_classes=True, **wild)
    assert not text.isascii()


def test_classes_are_unicodes_in_a_model_of_characters(small_model: Model) -> None:
    pattern = {"regex": r"\w{5}\W", "seed": 1}
    assert small_model.generate(**pattern) == small_model.generate(**pattern, unicode_classes=True)
    assert re.fullmatch(r"\w{5}\W", small_model.generate(**pattern, unicode_classes=False))

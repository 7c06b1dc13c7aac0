"""Constraints never lead to where nothing can follow, whatever the vocabulary lacks."""

from __future__ import annotations

import itertools
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from rillet.runtime import Model, SamplingParams, UsageError
from rillet.runtime.sampling.sampler import Sampler
from rillet.runtime.tokenizer import Tokenizer
from rillet.train import make_tokenizer
from support.command_line import here

pytest.importorskip("llguidance", reason="llguidance is not installed: pip install rillet[grammar]")

LETTERS = "abc9é"

Pattern = tuple[str, str]
"""A regular expression, and the same as a rule of a grammar."""


def _both(kind: str, parts: list[Pattern]) -> Pattern:
    regexes, rules = zip(*parts, strict=True)
    if kind == "|":
        return f"({'|'.join(regexes)})", f"({' | '.join(rules)})"
    return "".join(regexes), f"({' '.join(rules)})"


PATTERNS: st.SearchStrategy[Pattern] = st.recursive(
    st.text(LETTERS, min_size=1, max_size=3).map(lambda text: (text, json.dumps(text))),
    lambda inner: st.one_of(
        st.builds(_both, st.sampled_from(["|", ""]), st.lists(inner, min_size=2, max_size=3)),
        st.builds(
            lambda part, sign: (f"({part[0]}){sign}", f"({part[1]}){sign}"),
            inner,
            st.sampled_from(["?", "*", "+"]),
        ),
    ),
    max_leaves=7,
)
WORDS = st.lists(st.text(LETTERS, min_size=1, max_size=2), max_size=2)


def written(sampler: Sampler, tokenizer: Tokenizer, seed: int, limit: int) -> tuple[str, bool]:
    """A random text within the constraint, and whether it is complete."""
    random, tokens = np.random.default_rng(seed), []
    assert sampler.constraint is not None
    while not sampler.constraint.done and len(tokens) < limit:
        tokens.append(sampler.draw(random.standard_normal(tokenizer.vocab_size)))
    return tokenizer.decode(tokens), sampler.constraint.done


def is_free(text: str, words: list[str], before: str) -> bool:
    joined, first = before + text, len(before) + 1
    return all(joined.find(word, max(0, first - len(word))) < 0 for word in words)


@pytest.mark.parametrize("is_regex", [True, False], ids=["regex", "grammar"])
@given(
    pattern=PATTERNS,
    letters=st.sets(st.sampled_from(LETTERS), min_size=1, max_size=3),
    words=WORDS,
    before=st.text(LETTERS, max_size=2),
    seed=st.integers(0, 99),
)
@example(("(a9|b)", '("a" "9" | "b")'), {"a", "b"}, [], "", 0)
@example(("(a(ab)*9|b)", '("a" ("ab")* "9" | "b")'), {"a", "b"}, [], "", 0)
@example(("(ab|cb)", '("a" "b" | "c" "b")'), {"a", "b", "c"}, ["ab"], "", 0)
@example(("(ab|cb)", '("a" "b" | "c" "b")'), {"a", "b", "c"}, ["9a"], "9", 0)
@example(("(9)?", '("9")?'), {"a"}, [], "", 0)
def test_what_is_begun_can_be_completed(
    is_regex: bool, pattern: Pattern, letters: set[str], words: list[str], before: str, seed: int
) -> None:
    tokenizer = make_tokenizer("".join(sorted(letters)), "char")
    regex, rule = pattern
    constraint = {"regex": regex} if is_regex else {"grammar": f"start: {rule}"}
    params = SamplingParams(1.0, seed=seed, bad_words=words, **constraint)
    try:
        sampler = Sampler(params, tokenizer, before=before.encode())
    except UsageError as error:
        assert "none of its texts can be written" in str(error)  # noqa: PT017
        short = itertools.chain.from_iterable(
            itertools.product(sorted(letters), repeat=length) for length in range(6)
        )
        texts = ("".join(letters) for letters in short)
        assert not [t for t in texts if re.fullmatch(regex, t) and is_free(t, words, before)]
        return
    text, is_complete = written(sampler, tokenizer, seed, 60)
    assert is_free(text, words, before)
    assert not is_complete or re.fullmatch(regex, text)
    # Whatever was written, the same sampler continues after a restore.
    again = Sampler(params, tokenizer)
    again.restore(sampler.snapshot())
    assert again.constraint is not None
    assert again.constraint.done == is_complete


@given(pattern=PATTERNS, seed=st.integers(0, 99), forbidden=st.sampled_from(["é", "a", "9"]))
def test_a_forbidden_token_is_like_an_unknown_character(
    pattern: Pattern, seed: int, forbidden: str
) -> None:
    tokenizer = make_tokenizer(LETTERS, "char")
    options = {"regex": pattern[0], "logit_bias": {forbidden: -math.inf}}
    try:
        sampler = Sampler(SamplingParams(1.0, seed=seed, **options), tokenizer)
    except UsageError:
        return
    text, is_complete = written(sampler, tokenizer, seed, 60)
    assert forbidden not in text
    assert not is_complete or re.fullmatch(pattern[0], text)


def test_what_is_left_keeps_its_shares() -> None:
    """A token that leads nowhere is replaced in proportion to the others' probabilities."""
    tokenizer = make_tokenizer("abc", "char")
    logits = np.log([0.6, 0.3, 0.1])
    counts = dict.fromkeys((0, 1, 2), 0)
    for seed in range(2_000):
        params = SamplingParams(1.0, seed=seed, grammar='start: "a" "9" | "b" | "c"')
        sampler = Sampler(params, tokenizer)
        counts[sampler.draw(logits)] += 1
    assert counts[0] == 0
    assert counts[1] / 2_000 == pytest.approx(0.75, abs=0.03)
    np.testing.assert_allclose(Sampler(params, tokenizer).probabilities(logits), [0, 0.75, 0.25])


@pytest.mark.parametrize("kind", ["byte", "bpe"])
def test_missing_bytes(kind: str) -> None:
    """Half a character is not begun if its other byte is missing."""
    tokenizer = make_tokenizer("some é and more of them " * 50, kind)
    (byte,) = (token for token, data in enumerate(tokenizer.token_bytes) if data == b"\xa9")
    for seed in range(20):
        params = SamplingParams(1.0, seed=seed, regex="(é|è|x)!", logit_bias={byte: -math.inf})
        text, is_complete = written(Sampler(params, tokenizer), tokenizer, seed, 60)
        assert is_complete
        assert text in ("è!", "x!")


@given(
    choices=st.lists(st.text("abc9", min_size=1, max_size=3), min_size=1, max_size=5, unique=True),
    words=WORDS,
    before=st.text("abc9", max_size=2),
    seed=st.integers(0, 99),
)
def test_choices_without_bad_words(
    choices: list[str], words: list[str], before: str, seed: int
) -> None:
    choices = [f"{choice}." for choice in choices]
    assume(not any(a != b and b.startswith(a) for a in choices for b in choices))
    tokenizer = make_tokenizer("abc9.", "char")
    left = [choice for choice in choices if is_free(choice, words, before)]
    params = SamplingParams(1.0, seed=seed, choices=choices, bad_words=words)
    if not left:
        with pytest.raises(UsageError, match="none of them can be written: bad_words forbids"):
            Sampler(params, tokenizer, before=before.encode())
        return
    text, is_complete = written(Sampler(params, tokenizer, before=before.encode()), tokenizer, 0, 9)
    assert is_complete
    assert text in left


@pytest.mark.parametrize("options", [{"regex": "(水)?"}, {"grammar": 'start: ("水")?'}])
def test_an_empty_match_is_the_empty_text(small_model: Model, options: dict[str, str]) -> None:
    session = small_model.session()
    session.feed("The ")
    stream = session.stream(**options)
    assert ("".join(stream), stream.finish_reason, stream.stats.tokens) == ("", "grammar", 0)
    with small_model.batch() as batch:
        assert batch.generate(["The ", "A "], **options) == ["", ""]


def test_json_without_some_characters() -> None:
    """A schema's texts end, though the model lacks a brace or a digit."""
    schema = {
        "type": "object",
        "properties": {
            "a": {
                "anyOf": [
                    {"type": "array", "items": {"type": "string"}},
                    {"type": "integer"},
                    {"type": "null"},
                ]
            }
        },
        "required": ["a"],
        "additionalProperties": False,
    }
    grammar = f"start: %json {json.dumps(schema)}"
    tokenizer = make_tokenizer('{}"a:, xnul[', "char")
    for seed in range(8):
        params = SamplingParams(1.0, seed=seed, grammar=grammar, bad_words=["x"])
        text, is_complete = written(Sampler(params, tokenizer), tokenizer, seed, 200)
        assert is_complete
        assert json.loads(text) == {"a": None}
    with pytest.raises(UsageError, match="none of its texts can be written"):
        Sampler(SamplingParams(1.0, grammar=grammar), make_tokenizer('{"a:, x12', "char"))


def test_on_the_command_line(small_bundle: Path) -> None:
    for seed in range(5):
        result = here("generate", small_bundle, "--regex", "(a水|b)", "--seed", seed)
        assert (result.stdout, result.returncode) == ("b\n", 0), result.stderr
    result = here("generate", small_bundle, "--regex", "(水)?", "--json")
    assert json.loads(result.stdout)["text"] == ""
    result = here("generate", small_bundle, "The", "--regex", "ab|cb", "--bad-word", "b")
    assert result.returncode == 2
    assert "bad_words forbids them" in result.stderr
    assert result.stdout == ""

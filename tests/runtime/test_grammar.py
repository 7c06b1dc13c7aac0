"""Text constrained by a regular expression or a grammar."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rillet.runtime import Model, SamplingParams, UsageError
from rillet.runtime.sampling.sampler import Sampler
from rillet.train import make_tokenizer
from support.command_line import here

pytest.importorskip("llguidance", reason="llguidance is not installed: pip install rillet[grammar]")

LIST = """
start: "[" item ("," item)* "]"
item: NAME | start
NAME: /[a-z]{1,3}/
"""
PATTERNS = [
    r"[0-9]{2}:[0-9]{2}",
    r"(yes|no|perhaps)\.",
    r"[A-Z][a-z]{2,9} is [a-z]+\.",
    r"\"[^\"\n]{0,12}\"\n",
    r"(a|b){3}",
]


@given(
    pattern=st.sampled_from(PATTERNS),
    seed=st.integers(0, 1000),
    temperature=st.sampled_from([0.0, 0.8, 3.0]),
)
def test_generated_text_matches_the_pattern(
    small_model: Model, pattern: str, seed: int, temperature: float
) -> None:
    session = small_model.session()
    session.feed("The time is ")
    stream = session.stream(regex=pattern, seed=seed, temperature=temperature, max_new_tokens=500)
    text = "".join(stream)
    if stream.finish_reason == "grammar":
        assert re.fullmatch(pattern, text)
    else:  # a greedy word may never end
        assert stream.finish_reason == "length"
        assert stream.stats.tokens == 500


@given(seed=st.integers(0, 1000))
def test_a_recursive_grammar(small_model: Model, seed: int) -> None:
    session = small_model.session()
    stream = session.stream(grammar=LIST, seed=seed, temperature=1.0, max_new_tokens=2000)
    text = "".join(stream)
    if stream.finish_reason == "grammar":
        assert isinstance(json.loads(re.sub(r"[a-z]+", r'"\g<0>"', text)), list)
    else:
        assert text.startswith("[")


@given(seed=st.integers(0, 50))
def test_a_pattern_with_multibyte_tokens(seed: int) -> None:
    """BPE tokens may span several parts of the pattern, and characters several tokens."""
    tokenizer = make_tokenizer("the cat sat on the mät, the hat in the cät " * 40, "bpe", 300)
    sampler = Sampler(SamplingParams(1.0, regex="the (c|h)(at|ät){2}!?;", seed=seed), tokenizer)
    random = np.random.default_rng(seed)
    tokens: list[int] = []
    assert sampler.constraint is not None
    while not sampler.constraint.done:
        tokens.append(sampler.draw(random.standard_normal(tokenizer.vocab_size)))
    assert re.fullmatch("the (c|h)(at|ät){2}!?;", tokenizer.decode(tokens))


def test_a_pattern_without_an_end_continues_to_the_limit(small_model: Model) -> None:
    stream = small_model.session().stream(regex="[a-z]+", max_new_tokens=30, seed=1)
    text = "".join(stream)
    assert stream.finish_reason == "length"
    assert re.fullmatch("[a-z]{30}", text)


def test_saving_in_the_middle_of_a_pattern(small_model: Model, tmp_path: Path) -> None:
    options = {"regex": r"[a-z ]{40}\.", "seed": 5, "temperature": 1.0}
    whole = small_model.session().generate(**options)
    session = small_model.session()
    stream = session.stream(**options)
    begun = "".join(next(stream) for _ in range(7))
    session.save(tmp_path / "state")
    restored = small_model.restore(tmp_path / "state")
    assert begun + "".join(restored.resume()) == whole
    checkpoint = session.checkpoint()
    rest = "".join(stream)
    session.rollback(checkpoint)
    assert begun + "".join(session.resume()) == begun + rest == whole


def test_patterns_in_a_batch(small_model: Model) -> None:
    options = {"regex": r"[a-z]{2,8}!", "temperature": 1.0}
    with small_model.batch() as batch:
        together = batch.generate(["The ", "In ", "A "], seed=3, **options)
    for index, (prompt, text) in enumerate(zip(["The ", "In ", "A "], together, strict=True)):
        assert re.fullmatch(options["regex"], text)
        assert text == small_model.generate(prompt, seed=3 + index, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"regex": "(a"}, r"regex is '\(a', which is not valid: .*unclosed group"),
        ({"grammar": 'start: "a" other'}, 'which is not valid: .*unknown name: "other"'),
        ({"regex": ""}, "regex is ''; it must be a non-empty text"),
        ({"grammar": 3}, "grammar is 3; it must be a non-empty text"),
        ({"regex": "a", "choices": ["b"]}, "choices and regex each say"),
        ({"regex": "a", "grammar": "b"}, "regex and grammar each say"),
        ({"regex": "水"}, "none of its texts can be written: this model lacks characters"),
        ({"regex": "a\ud800"}, "contains half a surrogate pair"),
        ({"regex": "[0-9]", "in_graph": True}, "regex cannot be used inside the graph"),
    ],
)
def test_invalid_patterns_are_refused(
    small_model: Model, options: dict[str, object], message: str
) -> None:
    session = small_model.session()
    session.feed("The ")
    before = session.position
    with pytest.raises(UsageError, match=message):
        session.generate(**options)
    assert session.position == before


def test_a_missing_llguidance_says_how_to_install_it(
    small_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(UsageError, match=r"pip install 'rillet\[grammar\]'"):
        small_model.session().generate(regex="a")


def test_on_the_command_line(small_bundle: Path, tmp_path: Path) -> None:
    def run(*options: object) -> subprocess.CompletedProcess[str]:
        return here("generate", small_bundle, "--seed", 2, *options)

    result = run("--regex", "[0-9]{4}-[0-9]{2}", "--no-stream", "--stats")
    assert re.fullmatch("[0-9]{4}-[0-9]{2}\n", result.stdout), result.stderr
    assert re.match("7 tokens.*ended by grammar", result.stderr)
    file = tmp_path / "list.lark"
    file.write_text('start: ("x" | "y"){5}')
    result = run("--grammar", file, "--json")
    assert re.fullmatch("[xy]{5}", json.loads(result.stdout)["text"])
    result = run("--regex", "(a")
    assert result.returncode == 2
    assert "unclosed group" in result.stderr
    assert "Traceback" not in result.stderr

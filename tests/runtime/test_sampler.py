"""Sampling: each option is checked against a plain implementation of its definition."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rillet.runtime import Model, Sampler, SamplingParams, Tokenizer, UsageError
from rillet.runtime.sampling.sampler import choose_rows
from rillet.train import make_tokenizer

LETTERS = make_tokenizer("abcdefgh", "char")

letter_logits = st.lists(st.floats(-20, 0, width=32), min_size=8, max_size=8).map(
    lambda values: np.asarray(values, np.float32)
)


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits.astype(np.float64) - logits.max())
    return weights / weights.sum()


@given(logits=letter_logits, min_p=st.floats(0, 1))
def test_min_p(logits: np.ndarray, min_p: float) -> None:
    kept = Sampler(SamplingParams(1.0, min_p=min_p)).probabilities(logits)
    plain = softmax(logits)
    expected = np.where(plain < min_p * plain.max(), 0, plain)
    np.testing.assert_allclose(kept, expected / expected.sum(), atol=1e-12)


@given(logits=letter_logits, typical_p=st.floats(0.01, 0.999))
def test_typical_p(logits: np.ndarray, typical_p: float) -> None:
    """Tokens in order of distance from the expected surprise, until they reach the mass."""
    kept = Sampler(SamplingParams(1.0, typical_p=typical_p)).probabilities(logits)
    plain = softmax(logits)
    surprise = -np.log(plain)
    distance = np.abs(surprise - (plain * surprise).sum())
    order = np.argsort(distance, kind="stable")
    count = int((np.cumsum(plain[order]) < typical_p - 1e-9).sum()) + 1
    assert set(np.flatnonzero(kept)) <= set(order[: count + 1])
    assert plain[kept > 0].sum() >= typical_p - 1e-9
    assert kept[order[0]] > 0


def test_options_apply_in_hugging_faces_order() -> None:
    logits = np.log(np.asarray([0.4, 0.3, 0.2, 0.05, 0.03, 0.01, 0.006, 0.004], np.float32))
    params = SamplingParams(0.5, top_k=4, top_p=0.9, min_p=0.3)
    squared = np.asarray([0.16, 0.09, 0.04, 0.0025])
    # top-k keeps 4, of which top-p keeps 3 (0.547, 0.855, 0.991), of which min-p keeps 2.
    expected = np.zeros(8)
    expected[:2] = squared[:2] / squared[:2].sum()
    np.testing.assert_allclose(Sampler(params).probabilities(logits), expected, rtol=1e-5)


@given(logits=letter_logits, penalty=st.floats(0.5, 3), text=st.text("abcdefgh", max_size=6))
def test_repetition_penalty(logits: np.ndarray, penalty: float, text: str) -> None:
    logits = logits + 5  # some positive, some negative
    seen = np.zeros(8, np.bool_)
    seen[LETTERS.encode(text)] = True
    params = SamplingParams(1.0, repetition_penalty=penalty)
    actual = Sampler(params, LETTERS, seen).probabilities(logits)
    expected = logits.astype(np.float64)
    for token in set(LETTERS.encode(text)):
        expected[token] *= 1 / penalty if expected[token] > 0 else penalty
    np.testing.assert_allclose(actual, softmax(expected), atol=1e-9)


def test_frequency_and_presence_penalty_count_generated_tokens() -> None:
    params = SamplingParams(0, frequency_penalty=1.0, presence_penalty=0.5)
    sampler = Sampler(params, LETTERS)
    logits = np.asarray([0, -1, -9, -9, -9, -9, -9, -9], np.float32)
    # a costs 0, 1.5, 2.5, ... and b costs 1, 2.5, 3.5, ...: on a tie, a comes first.
    assert [sampler.draw(logits) for _ in range(6)] == [0, 1, 0, 0, 1, 0]


def test_logit_bias_by_number_and_by_text() -> None:
    logits = np.zeros(8, np.float32)
    bias: dict[int | str, float] = {0: 3.0, "b": 1.0, "h": -math.inf, 1: 1.0}
    params = SamplingParams(1.0, logit_bias=bias)
    actual = Sampler(params, LETTERS).probabilities(logits)
    np.testing.assert_allclose(actual, softmax(np.asarray([3, 2, 0, 0, 0, 0, 0, -np.inf])))


@given(
    words=st.lists(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=3),
    before=st.text("abc", max_size=5),
    seed=st.integers(0, 1000),
)
def test_bad_words_are_never_written(words: list[str], before: str, seed: int) -> None:
    tokenizer = make_tokenizer("abcd", "char")
    sampler = Sampler(
        SamplingParams(1.0, bad_words=words, seed=seed), tokenizer, before=before.encode()
    )
    written = ""
    for _ in range(60):
        written += tokenizer.decode([sampler.draw(np.zeros(4, np.float32))])
    assert not any(word in written for word in words)
    # Nor is a word completed that begins in the prompt; words inside the prompt do not count.
    for at in range(len(before), len(before) + len(written)):
        ended = (before + written)[: at + 1]
        assert not any(ended.endswith(word) for word in words)


def bpe() -> Tokenizer:
    return make_tokenizer("the cat sat on the mat, and the hat was that cat's. " * 40, "bpe", 300)


@given(seed=st.integers(0, 200))
def test_bad_words_and_choices_across_longer_tokens(seed: int) -> None:
    tokenizer = bpe()
    logits = np.random.default_rng(seed).normal(0, 3, tokenizer.vocab_size).astype(np.float32)
    sampler = Sampler(SamplingParams(1.0, bad_words=["at"], seed=seed), tokenizer)
    text = tokenizer.decode([sampler.draw(logits) for _ in range(200)])
    assert "at" not in text
    choices = ["the cat", "the hat", "a mät"]
    sampler = Sampler(SamplingParams(1.0, choices=choices, seed=seed), tokenizer)
    assert sampler.constraint is not None
    tokens = []
    while not sampler.constraint.done:
        tokens.append(sampler.draw(logits))
    assert tokenizer.decode(tokens) in choices


def test_exactly_one_choice_is_written(small_model: Model) -> None:
    session = small_model.session()
    session.feed("The ")
    choices = ["statement", "expression", "name"]
    texts = set()
    for seed in range(12):
        with session.fork() as twin:
            stream = twin.stream(choices=choices, seed=seed, temperature=3.0)
            texts.add("".join(stream))
            assert stream.finish_reason == "choice"
    assert texts <= set(choices)
    assert len(texts) > 1


@given(
    data=st.data(),
    count=st.integers(1, 12),
    temperature=st.sampled_from([0.0, 0.7, 1.5]),
    top_k=st.sampled_from([0, 3]),
    top_p=st.sampled_from([1.0, 0.8]),
    min_p=st.sampled_from([0.0, 0.1]),
    typical_p=st.sampled_from([1.0, 0.9]),
)
def test_drawing_together_equals_drawing_alone(
    data: st.DataObject, count: int, **options: Any
) -> None:
    rows = np.stack([data.draw(letter_logits) for _ in range(count)])
    variants = [SamplingParams(**options, seed=seed) for seed in range(count)]
    variants[0] = SamplingParams(0.9, seed=3, repetition_penalty=1.3)
    together = [Sampler(params, LETTERS) for params in variants]
    alone = [Sampler(params, LETTERS) for params in variants]
    for _ in range(3):
        drawn = choose_rows(together, rows)
        for sampler, token in zip(together, drawn, strict=True):
            sampler.accept(token)
        assert drawn == [sampler.draw(row) for sampler, row in zip(alone, rows, strict=True)]


@given(logits=letter_logits, seed=st.integers(0, 1000))
def test_a_draw_inverts_the_distribution(logits: np.ndarray, seed: int) -> None:
    """One uniform number for each token, by the rule that the generate graph follows too."""
    params = SamplingParams(1.0, top_k=3, seed=seed)
    sampler, twin = Sampler(params), Sampler(params)
    ends = np.cumsum(sampler.probabilities(logits))
    for _ in range(5):
        token, uniform = sampler.draw(logits), twin.uniform()
        start = ends[token - 1] if token else 0.0
        assert start - 1e-12 <= uniform <= ends[token] + 1e-12
        assert ends[token] > start


@pytest.mark.parametrize(
    ("uniform", "token"), [(0.0, 0), (0.25, 1), (0.5, 2), (np.nextafter(1, 0), 2)]
)
def test_a_draw_at_a_boundary(uniform: float, token: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A share of the unit interval contains its start and not its end."""
    logits = np.log(np.asarray([0.25, 0.25, 0.5, 1e-30], np.float32))
    sampler = Sampler(SamplingParams(1.0, top_k=3))
    monkeypatch.setattr(sampler, "uniform", lambda: uniform)
    assert sampler.draw(logits) == token


def test_logprobs_come_from_the_model_before_sampling(small_model: Model) -> None:
    session = small_model.session()
    session.feed("The ")
    for _ in range(10):
        logits = session.logits
        assert logits is not None
        drawn = next(session.tokens(max_new_tokens=1, seed=1, temperature=2.0, top_logprobs=3))
        assert drawn.logprob == logits[drawn.token]
        assert [value for _, value in drawn.top] == sorted(logits, reverse=True)[:3]
        assert all(logits[token] == value for token, value in drawn.top)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_p": 1.5}, "min_p is 1.5; it must lie between 0 and 1"),
        ({"typical_p": 0}, "typical_p is 0; it must lie above 0"),
        ({"repetition_penalty": 0}, "repetition_penalty is 0; it must be above 0"),
        ({"presence_penalty": math.inf}, "presence_penalty is inf; it must be a finite number"),
        ({"frequency_penalty": 10**400}, "it must be a finite number"),
        ({"top_logprobs": -1}, "top_logprobs is -1"),
        ({"stop": ["a", ""]}, "stop has the entry ''"),
        ({"stop": 5}, "stop is 5; it must be a text or a list"),
        ({"bad_words": [5]}, "bad_words has the entry 5"),
        ({"choices": ["a", "ab"]}, "choices has 'a', which is the beginning of 'ab'"),
        ({"choices": ["水"]}, "choices has '水', with characters"),
        ({"logit_bias": 5}, "logit_bias is 5"),
        ({"logit_bias": {1.5: 1}}, "logit_bias names the token 1.5"),
        ({"logit_bias": {1: math.nan}}, "logit_bias adds nan to 1"),
        ({"logit_bias": {10_000: 1}}, "logit_bias names the token 10000; tokens must lie between"),
        ({"logit_bias": {"水": 1}}, "logit_bias names the text '水', with characters"),
        ({"logit_bias": {"": 1}}, "logit_bias names the token ''"),
        ({"epsilon_cutoff": 1}, "epsilon_cutoff is 1; it must be at least 0 .off. and below 1"),
        ({"eta_cutoff": -0.1}, "eta_cutoff is -0.1; it must be at least 0"),
        ({"penalty_window": 5000}, "penalty_window is 5000; it must be a whole number from 0"),
        ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size is -1"),
        ({"min_new_tokens": 1.5}, "min_new_tokens is 1.5"),
        ({"max_time": 0}, "max_time is 0; it must be above 0 seconds"),
        ({"max_time": "a"}, "max_time is 'a'; it must be a finite number"),
        ({"stop_token_ids": ["a"]}, "stop_token_ids is .'a'.; it must be a token's number"),
        ({"stop_token_ids": 10_000}, "stop_token_ids names the token 10000; tokens must lie"),
        ({"include_stop": 1}, "include_stop is 1; it must be true or false"),
        ({"logits_processor": 3}, "logits_processor is 3; it must be a function"),
        ({"logits_processor": lambda *_: 3}, "logits_processor returned 3; it must return"),
        ({"best_of": 0}, "best_of is 0; it must be a whole number from 1 to 1000"),
        ({"best_of": 10**9}, "best_of is 1000000000; it must be a whole number from 1 to 1000"),
        ({"regex": "a\\"}, r"regex ends with a lone backslash, \.\.\.'a\\\\'; write two"),
        ({"regex": "\\" * 3}, "regex ends with a lone backslash"),
        (
            {"bad_words": list("abcdefghijklmnopqrstuvwxyz "), "choices": ["the"]},
            "none .* can be written: bad_words",
        ),
    ],
)
def test_invalid_options_are_refused(
    small_model: Model, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        small_model.generate("The", **options)


def test_options_that_need_a_tokenizer_are_refused_without_one() -> None:
    with pytest.raises(UsageError, match="require a tokenizer; pass one to Sampler"):
        Sampler(SamplingParams(bad_words=["a"]))


def test_a_single_text_may_replace_a_list() -> None:
    alone, listed = SamplingParams(stop="end", seed=1), SamplingParams(stop=["end"], seed=1)
    assert alone.stop == ("end",)
    assert alone == listed
    assert hash(alone) == hash(listed)


def test_numpys_numbers_and_arrays_are_taken() -> None:
    bias = {np.int64(5): np.float32(1.5), "e": np.float64(-1), 7: -np.inf}
    params = SamplingParams(
        logit_bias=bias,
        stop_token_ids=np.array([1, 2]),
        stop=np.array(["a", "b"]),
        choices=np.array(["yes", "no"]),
        temperature=np.array(0.5),
        max_new_tokens=np.uint8(3),
    )
    assert params.logit_bias == {5: 1.5, "e": -1.0, 7: -np.inf}
    assert set(map(type, params.logit_bias)) == {int, str}
    assert (params.stop_token_ids, params.stop) == ((1, 2), ("a", "b"))
    assert (params.choices, params.temperature) == (("yes", "no"), 0.5)
    for wrong in ([1.0], [[1, 2]], [True], [-1]):
        with pytest.raises(UsageError, match="stop_token_ids is"):
            SamplingParams(stop_token_ids=np.array(wrong))
    with pytest.raises(UsageError, match=r"logit_bias names the token 5\.0"):
        SamplingParams(logit_bias={np.float64(5): 1.0})

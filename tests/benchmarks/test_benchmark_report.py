"""The models that docs/benchmarks.md compares with, and the page itself."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch

from lib.arrays import TokenArray
from lib.kv_transformer import Shape, kv_step, make_weights, reference_step
from lib.min_gru import MinGRU, matched_min_gru, scan
from lib.ngram import NGram
from lib.report_page import Results, benchmarks_page
from lib.stepping import Steps
from report import PAGE, read_results

VOCAB = 7


def some_text(length: int, seed: int) -> TokenArray:
    """A partly predictable text; some seeds lack a token."""
    random = np.random.default_rng(seed)
    steps = np.where(random.random(length) < 0.3, random.integers(0, VOCAB, length), 2)
    return steps.cumsum() % VOCAB


def counted(text: list[int], context: list[int], token: int) -> float:
    """The probability that :class:`NGram` computes, counted by scanning the text."""
    if len(context) > len(text):
        return 1 / VOCAB
    below = counted(text, context[1:], token) if context else 1 / VOCAB
    size = len(context)
    followers = [
        text[start + size]
        for start in range(len(text) - size)
        if text[start : start + size] == context
    ]
    if not followers:
        return below
    kinds = len(set(followers))
    return (followers.count(token) + kinds * below) / (len(followers) + kinds)


@pytest.mark.parametrize("order", [1, 2, 4])
def test_ngram_is_a_count(order: int) -> None:
    text, other = some_text(120, 0), some_text(40, 1)
    expected = [
        -math.log(counted(text.tolist(), other[max(0, i - order + 1) : i].tolist(), int(other[i])))
        for i in range(1, len(other))
    ]
    model = NGram(text, VOCAB, order)
    assert model.loss(other) == pytest.approx(sum(expected) / len(expected), rel=1e-9)
    ngrams = {tuple(text[i : i + n]) for n in range(1, order + 1) for i in range(121 - n)}
    assert model.entries == len(ngrams)


def test_an_unseen_token_is_surprising() -> None:
    text = np.zeros(50, np.int64)
    model = NGram(text, VOCAB, 3)
    assert model.loss(np.asarray([0, 5, 6])) > model.loss(text) + 1


def test_ngrams_beyond_63_bits_are_refused() -> None:
    with pytest.raises(ValueError, match="63 bits"):
        NGram(np.zeros(10, np.int64), 65, 11)


@pytest.mark.parametrize("length", [1, 2, 13, 64])
def test_scan_equals_the_loop(length: int) -> None:
    torch.manual_seed(0)
    kept, added = torch.rand(3, length, 5), torch.randn(3, length, 5)
    state = before = torch.randn(3, 5)
    states = []
    for t in range(length):
        state = kept[:, t] * state + added[:, t]
        states.append(state)
    torch.testing.assert_close(scan(kept, added, before), torch.stack(states, dim=1))


@pytest.mark.parametrize("length", [1, 2, 5])
def test_scan_has_the_gradients_of_the_loop(length: int) -> None:
    torch.manual_seed(length)
    values = [torch.rand(2, length, 3), torch.randn(2, length, 3), torch.randn(2, 3)]
    torch.autograd.gradcheck(scan, [value.double().requires_grad_() for value in values])


@torch.no_grad()
def test_min_gru_does_not_depend_on_chunks() -> None:
    torch.manual_seed(0)
    model, parts, state = MinGRU(VOCAB, 12).eval(), [], None
    text = torch.from_numpy(some_text(120, 2)).view(2, -1)
    for chunk in text.split([1, 20, 7, 32], dim=1):
        logits, state = model(chunk, state)
        parts.append(logits)
    whole, last = model(text)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-5, rtol=0)
    torch.testing.assert_close(state, last, atol=1e-5, rtol=0)


def test_min_gru_is_matched() -> None:
    assert matched_min_gru(157_000, 65).parameter_count() == pytest.approx(157_000, rel=0.03)
    with pytest.raises(ValueError, match="no minGRU"):
        matched_min_gru(100, 65)


def test_transformer_of_any_shape_equals_its_reference() -> None:
    shape = Shape(blocks=2, heads=3, width=12, vocabulary=VOCAB, positions=8)
    weights = make_weights(shape)
    tokens, caches = some_text(10, 4), {}
    steps = Steps(kv_step(6, weights, shape), tokens)
    for name, value in steps.sides[0].items():
        if name.startswith("cache_"):
            caches[name] = np.zeros_like(value)
    expected = [
        reference_step(int(token), position, caches, weights, shape)
        for position, token in enumerate(tokens)
    ]
    np.testing.assert_allclose(steps.run_all(tokens), np.stack(expected), atol=1e-4)


def test_page_matches_the_results() -> None:
    assert PAGE.read_text(encoding="utf-8") == benchmarks_page(read_results()), (
        "docs/benchmarks.md is out of date; run python benchmarks/report.py"
    )


def test_page_shows_its_plots_and_commands() -> None:
    text = PAGE.read_text(encoding="utf-8")
    images = re.findall(r"!\[.*\]\((.*)\)", text)
    assert len(images) == 3
    assert all((PAGE.parent / image).is_file() for image in images)
    scripts = re.findall(r"^python (benchmarks/\w+\.py)", text, re.MULTILINE)
    assert len(scripts) == text.count("\n| --- ")
    assert all((PAGE.parents[1] / script).is_file() for script in scripts)


def unwrapped_page(results: Results) -> str:
    return " ".join(benchmarks_page(results).split())


def test_page_tells_where_a_baseline_wins() -> None:
    results = read_results()
    rows = results["costs"]["figures"]["rows"]
    rows["gru"]["ratio"], rows["mingru"]["ratio"] = 0.25, 1.5
    assert "GRU, 2 layers (0.25)" in unwrapped_page(results)
    assert "minGRU, 3 layers (1.50)" not in unwrapped_page(results)
    figures = results["equal_time"]["figures"]
    figures["gru"]["held_out"]["loss"] = figures["ours"]["held_out"]["with memory"] - 0.125
    assert "GRU, 2 layers by 0.1250" in unwrapped_page(results)

"""What docs/benchmarks.md compares with, and how it is made."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch

from kv_transformer import Shape, kv_step, make_weights, reference_step
from min_gru import MinGRU, matched_min_gru, scan
from ngram import NGram
from report import PAGE, read_results
from report_page import page
from stepping import Steps

VOCAB = 7


def some_text(length: int, seed: int) -> np.ndarray:
    """A text of some order, with a token that only some texts have."""
    random = np.random.default_rng(seed)
    steps = np.where(random.random(length) < 0.3, random.integers(0, VOCAB, length), 2)
    return steps.cumsum() % VOCAB


def counted(text: list[int], context: list[int], token: int) -> float:
    """The same probability, counted by going through the text."""
    if len(context) > len(text):
        return 1 / VOCAB
    below = counted(text, context[1:], token) if context else 1 / VOCAB
    size = len(context)
    followers = [
        text[place + size]
        for place in range(len(text) - size)
        if text[place : place + size] == context
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
    found = NGram(text, VOCAB, order)
    assert found.loss(other) == pytest.approx(sum(expected) / len(expected), rel=1e-9)
    runs = {tuple(text[i : i + n]) for n in range(1, order + 1) for i in range(121 - n)}
    assert found.entries == len(runs)


def test_ngram_of_a_token_never_seen() -> None:
    text = np.zeros(50, np.int64)
    assert NGram(text, VOCAB, 3).loss(np.asarray([0, 5, 6])) > NGram(text, VOCAB, 3).loss(text) + 1


def test_ngram_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="63 bits"):
        NGram(np.zeros(10, np.int64), 65, 11)


@pytest.mark.parametrize("length", [1, 2, 13, 64])
def test_scan_is_the_loop(length: int) -> None:
    torch.manual_seed(0)
    kept, added = torch.rand(3, length, 5), torch.randn(3, length, 5)
    state = before = torch.randn(3, 5)
    states = []
    for t in range(length):
        state = kept[:, t] * state + added[:, t]
        states.append(state)
    torch.testing.assert_close(scan(kept, added, before), torch.stack(states, dim=1))


@torch.no_grad()
def test_min_gru_streams_what_it_reads_at_once() -> None:
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


def test_transformer_of_any_shape_is_its_reference() -> None:
    shape = Shape(blocks=2, heads=3, width=12, vocabulary=VOCAB, positions=8)
    weights = make_weights(shape)
    tokens, caches = some_text(10, 4), {}
    steps = Steps(kv_step(6, weights, shape), tokens)
    for name, value in steps.sides[0].items():
        if name.startswith("cache_"):
            caches[name] = np.zeros_like(value)
    wanted = [
        reference_step(int(token), place, caches, weights, shape)
        for place, token in enumerate(tokens)
    ]
    np.testing.assert_allclose(steps.run_all(tokens), np.stack(wanted), atol=1e-4)


def test_page_is_what_the_figures_make() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(read_results()), (
        "docs/benchmarks.md is not what benchmarks/report.py makes of benchmarks/results: run it"
    )


def test_page_shows_its_plots_and_commands() -> None:
    text = PAGE.read_text(encoding="utf-8")
    images = re.findall(r"!\[.*\]\((.*)\)", text)
    assert len(images) == 3
    assert all((PAGE.parent / image).is_file() for image in images)
    scripts = re.findall(r"^python (benchmarks/\w+\.py)", text, re.MULTILINE)
    assert len(scripts) == text.count("\n| --- ")
    assert all((PAGE.parents[1] / script).is_file() for script in scripts)


def test_page_says_where_a_baseline_wins() -> None:
    results = read_results()
    rows = results["costs"]["figures"]["rows"]
    rows["gru"]["ratio"], rows["mingru"]["ratio"] = 0.25, 1.5
    assert "GRU, 2 layers (0.25)" in page(results)
    assert "minGRU, 3 layers (1.50)" not in page(results)
    found = results["equal_time"]["figures"]
    found["gru"]["held_out"]["loss"] = found["ours"]["held_out"]["with memory"] - 0.125
    assert "GRU, 2 layers by 0.1250" in page(results)

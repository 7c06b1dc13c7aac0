"""Sampling options against Hugging Face's own processors, on thousands of random cases."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rillet.runtime import Sampler, SamplingParams
from rillet.train import make_tokenizer

torch = pytest.importorskip("torch")
processors = pytest.importorskip(
    "transformers.generation.logits_process",
    reason="transformers is not installed: pip install transformers",
)

LETTERS = make_tokenizer("abcdefghijkl", "char")
SIZE = LETTERS.vocab_size
CASES = int(os.environ.get("RILLET_EXAMPLES", "25")) * 40

Maker = Callable[[np.random.Generator, list[int]], tuple[dict[str, Any], list[Any]]]


def biases(random: np.random.Generator, _: list[int]) -> tuple[dict[str, Any], list[Any]]:
    sequences = {
        tuple(random.integers(0, SIZE, random.integers(1, 4)).tolist()): float(random.normal(0, 3))
        for _ in range(4)
    }
    named = {LETTERS.decode(list(tokens)): value for tokens, value in sequences.items()}
    theirs = [[list(tokens), value] for tokens, value in sequences.items()]
    return {"logit_bias": named}, [processors.SequenceBiasLogitsProcessor(theirs)]


def penalty(random: np.random.Generator, _: list[int]) -> tuple[dict[str, Any], list[Any]]:
    value = float(random.uniform(0.5, 2))
    return {"repetition_penalty": value}, [processors.RepetitionPenaltyLogitsProcessor(value)]


def windowed(random: np.random.Generator, tokens: list[int]) -> tuple[dict[str, Any], list[Any]]:
    value, window = float(random.uniform(0.5, 2)), int(random.integers(1, 12))
    whole = processors.RepetitionPenaltyLogitsProcessor(value)
    options = {"repetition_penalty": value, "penalty_window": window}
    return options, [lambda ids, scores: whole(ids[:, -window:], scores)]


def n_grams(random: np.random.Generator, _: list[int]) -> tuple[dict[str, Any], list[Any]]:
    size = int(random.integers(2, 5))
    return {"no_repeat_ngram_size": size}, [processors.NoRepeatNGramLogitsProcessor(size)]


def least(random: np.random.Generator, tokens: list[int]) -> tuple[dict[str, Any], list[Any]]:
    count, stops = int(random.integers(0, 30)), [1, 4]
    read = len(tokens) // 2
    theirs = processors.MinNewTokensLengthLogitsProcessor(read, count, stops, device="cpu")
    return {"min_new_tokens": count, "stop_token_ids": stops}, [theirs]


def warmer(name: str, ours: str, low: float, high: float) -> Maker:
    def make(random: np.random.Generator, _: list[int]) -> tuple[dict[str, Any], list[Any]]:
        value = float(random.uniform(low, high))
        return {ours: value}, [getattr(processors, name)(value)]

    return make


def top_k(random: np.random.Generator, _: list[int]) -> tuple[dict[str, Any], list[Any]]:
    count = int(random.integers(1, SIZE))
    return {"top_k": count}, [processors.TopKLogitsWarper(count)]


# In Hugging Face's order.
MAKERS: dict[str, Maker] = {
    "logit_bias": biases,
    "repetition_penalty": penalty,
    "no_repeat_ngram_size": n_grams,
    "min_new_tokens": least,
    "temperature": warmer("TemperatureLogitsWarper", "temperature", 0.3, 3),
    "top_k": top_k,
    "top_p": warmer("TopPLogitsWarper", "top_p", 0.2, 0.99),
    "min_p": warmer("MinPLogitsWarper", "min_p", 0, 0.5),
    "typical_p": warmer("TypicalLogitsWarper", "typical_p", 0.2, 0.99),
    "epsilon_cutoff": warmer("EpsilonLogitsWarper", "epsilon_cutoff", 0.001, 0.3),
    "eta_cutoff": warmer("EtaLogitsWarper", "eta_cutoff", 0.001, 0.9),
}
ALL = [[name] for name in MAKERS] + [list(MAKERS)]


@pytest.mark.parametrize("names", [*ALL, ["penalty_window"]], ids="-".join)
def test_the_distribution_is_hugging_faces(names: list[str]) -> None:
    random = np.random.default_rng(len(names))
    makers = {**MAKERS, "penalty_window": windowed}
    for _ in range(CASES):
        tokens = random.integers(0, SIZE, random.integers(2, 40)).tolist()
        logits = random.normal(0, 2, SIZE)
        options: dict[str, Any] = {"temperature": 1.0}
        scores = torch.from_numpy(logits)[None]
        ids = torch.tensor([tokens])
        for name in names:
            ours, theirs = makers[name](random, tokens)
            options |= ours
            for processor in theirs:
                scores = processor(ids, scores)
        assert scores.isfinite().any()
        expected = scores.softmax(-1)[0].numpy()

        read, seen = len(tokens) // 2, np.zeros(SIZE, np.bool_)
        seen[tokens[:read]] = True
        sampler = Sampler(SamplingParams(**options), LETTERS, seen, recent=tokens[:read])
        for token in tokens[read:]:
            sampler.accept(token)
        np.testing.assert_allclose(
            sampler.probabilities(logits), expected, atol=1e-6
        )  # a bias is float32 there

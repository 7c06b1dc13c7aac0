"""Our model and the baselines, each trained for the same CPU minutes.

    python benchmarks/equal_time.py CORPUS [--minutes 8] [--models ours,gru,mingru,gpt,ngram]
        [--set NAME.KEY=VALUE] [--look] [--json FILE]

All have as many trained parameters as the preset ``nano``, within 3 %, and the same streams,
optimiser, schedule and weight average, except for :data:`SETTINGS`. The script times a few steps
first, and makes the schedule as long as the minutes allow. It evaluates the held-out text once, at
the end; ``--look`` evaluates the validation text instead, to choose settings by.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from lib.baselines import Baseline, matched_gpt, matched_gru
from lib.contenders import BaselineContender, Contender, OwnContender
from lib.min_gru import matched_min_gru
from lib.ngram import NGram
from lib.results import write_results
from rillet.train import PRESETS, DualCNN, DualCNNConfig, make_tokenizer, read_corpus
from rillet.train.data.streams import Split, split
from rillet.train.data.token_file import Tokens

SETTINGS: dict[str, dict[str, Any]] = {
    "ours": {},
    # Chosen by --look, 45 s each, from rates of 5e-3 to 8e-2 for the recurrent models and 3e-3 to
    # 1.2e-2 for the transformer, whose small batches allow it more steps.
    "gru": {"learning_rate": 8e-2},
    "mingru": {"learning_rate": 4e-2},
    "gpt": {"learning_rate": 6e-3, "dropout": 0.0, "batch": 8},
}
"""Differences from the preset ``nano``."""

ORDERS = range(3, 9)
"""Orders of n-grams to try; the validation text decides."""

TRIAL = 5
"""Steps timed first, after one more that compiles and allocates."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus")
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--models", default="ours,gru,mingru,gpt,ngram")
    parser.add_argument("--set", action="append", default=[], metavar="NAME.KEY=VALUE")
    parser.add_argument("--look", action="store_true", help="evaluate the validation text")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    text = read_corpus(arguments.corpus)
    tokenizer = make_tokenizer(text)
    base = PRESETS["nano"].replace(vocab_size=tokenizer.vocab_size)
    texts = split(Tokens.of(tokenizer.encode(text)), base.training)
    names = arguments.models.split(",")
    configs = {
        name: base.replace_text(settings)
        for name, settings in _settings(arguments.set).items()
        if name in names
    }
    figures: dict[str, Any] = {}
    if "ngram" in names:
        figures["ngram"] = count_ngrams(texts, base.vocab_size, arguments.look)
    figures |= race(configs, texts, tokenizer.token_bytes, arguments.minutes, arguments.look)
    for name, own in figures.items():
        print(name, json.dumps(own), flush=True)
    if not arguments.look:
        write_results(arguments.json, figures)


def _settings(changes: list[str]) -> dict[str, dict[str, str]]:
    """The differences from the preset for each model, as text."""
    settings = {name: {key: str(v) for key, v in own.items()} for name, own in SETTINGS.items()}
    for change in changes:
        name, _, setting = change.partition(".")
        key, _, value = setting.partition("=")
        settings[name][key] = value
    return settings


def race(
    configs: dict[str, DualCNNConfig],
    texts: Split,
    words: Sequence[bytes],
    minutes: float,
    look: bool,
) -> dict[str, Any]:
    """Train each model for a number of CPU minutes, and evaluate it.

    They take turns, so that a busy machine slows all of them alike.
    """
    trials = {name: _contender(name, config, texts, words) for name, config in configs.items()}
    each = dict.fromkeys(configs, 0.0)
    for step in range(1 + TRIAL):
        for name, trial in trials.items():
            seconds = _timed(trial, step)
            each[name] += seconds / TRIAL if step else 0.0
    steps = {name: max(10, int(minutes * 60 / each[name])) for name in configs}
    contenders = {
        n: _contender(n, config.replace(steps=steps[n]), texts, words)
        for n, config in configs.items()
    }
    done, used = dict.fromkeys(configs, 0), dict.fromkeys(configs, 0.0)
    while done != steps:
        name = min((n for n in configs if done[n] < steps[n]), key=lambda n: done[n] / steps[n])
        used[name] += _timed(contenders[name], done[name])
        done[name] += 1
        if name == next(iter(configs)) and done[name] % 50 == 0:
            print(f"{done[name]} of {steps[name]} steps of {name}", flush=True)
    assert texts.validation is not None
    text = Tokens.of(texts.validation.reshape(-1)) if look else texts.held_out
    return {
        name: {
            "parameters": contender.parameters,
            "steps": steps[name],
            "tokens": steps[name] * configs[name].training.batch * configs[name].training.chunk,
            "cpu_minutes": used[name] / 60,
            ("validation" if look else "held_out"): contender.losses(text),
            "settings": {
                "learning_rate": configs[name].training.learning_rate,
                "batch": configs[name].training.batch,
                "chunk": configs[name].training.chunk,
                "dropout": configs[name].dropout,
                "average": configs[name].training.average,
            },
        }
        for name, contender in contenders.items()
    }


def _timed(contender: Contender, step: int) -> float:
    """Take a step; returns its CPU seconds."""
    start = time.process_time()
    contender.step(step)
    return time.process_time() - start


def _contender(name: str, config: DualCNNConfig, texts: Split, words: Sequence[bytes]) -> Contender:
    torch.manual_seed(config.seed)  # for the initial weights
    if name == "ours":
        return OwnContender(config, texts, words)
    size = DualCNN(PRESETS["nano"].replace(vocab_size=config.vocab_size)).parameter_count()
    return BaselineContender(_baseline(name, size, config), config, texts)


def _baseline(name: str, size: int, config: DualCNNConfig) -> Baseline:
    if name == "gpt":
        return matched_gpt(size, config.vocab_size, config.training.chunk, config.dropout)
    if name == "gru":
        return matched_gru(size, config.vocab_size, config.dropout)
    return matched_min_gru(size, config.vocab_size, config.dropout)


def count_ngrams(texts: Split, vocab: int, look: bool) -> dict[str, Any]:
    """Count n-grams of the training text; the validation text decides the order."""
    trained = texts.trained.windows(torch.zeros(1, dtype=torch.long), len(texts.trained))
    tokens = trained[0].numpy()
    assert texts.validation is not None
    pieces = [piece.numpy() for piece in texts.validation]
    start = time.process_time()
    tried = {}
    for order in ORDERS:
        model = NGram(tokens, vocab, order)
        tried[order] = sum(model.loss(piece) for piece in pieces) / len(pieces)
    order = min(tried, key=lambda n: tried[n])
    model = NGram(tokens, vocab, order)
    figures = {
        "parameters": model.entries,
        "bytes": model.bytes,
        "order": order,
        "tried": tried,
        "cpu_minutes": (time.process_time() - start) / 60,
    }
    if look:
        return figures
    held = texts.held_out.take(torch.arange(len(texts.held_out))).numpy()
    return {**figures, "held_out": {"loss": model.loss(held)}}


if __name__ == "__main__":
    main()

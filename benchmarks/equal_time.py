"""Ours and the baselines, each trained for as many CPU minutes by the same trainer.

    python benchmarks/equal_time.py CORPUS [--minutes 8] [--models ours,gru,mingru,gpt,ngram]
        [--set NAME.KEY=VALUE] [--look] [--json FILE]

All have as many trained parameters as the preset ``nano``, to 3 %, and the same streams, optimiser,
schedule and average of the weights, but for :data:`SETTINGS`. A few steps are timed first, and the
schedule is as long as the minutes allow. Held-out text is measured once, at the end; ``--look``
measures the validation text instead, to choose settings by.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

import machine
from baselines import Baseline, matched_gpt, matched_gru
from min_gru import matched_min_gru
from ngram import NGram
from rillet.train import PRESETS, DualCNN, DualCNNConfig, make_tokenizer, read_corpus
from rillet.train.data.streams import Split, split
from rillet.train.data.token_file import Tokens
from training import Other, Ours

SETTINGS: dict[str, dict[str, Any]] = {
    "ours": {},
    # Chosen by --look of 45 s each: rates 5e-3 and 1e-2 for the recurrent ones, 3e-3 and 6e-3 for
    # the transformer, which gets small batches, that it may take more steps.
    "gru": {"learning_rate": 5e-3},
    "mingru": {"learning_rate": 1e-2},
    "gpt": {"learning_rate": 6e-3, "dropout": 0.0, "batch": 8},
}
"""What differs from the preset ``nano``."""

ORDERS = range(3, 9)
"""Longest runs that are tried for the counts; the validation text chooses."""


TRIAL = 5
"""Steps that are timed first; one more before them compiles and allocates."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus")
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--models", default="ours,gru,mingru,gpt,ngram")
    parser.add_argument("--set", action="append", default=[], metavar="NAME.KEY=VALUE")
    parser.add_argument("--look", action="store_true")
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
        figures["ngram"] = count(texts, base.vocab_size, arguments.look)
    figures |= race(configs, texts, arguments.minutes, arguments.look)
    for name, found in figures.items():
        print(name, json.dumps(found), flush=True)
    if arguments.json and not arguments.look:
        machine.write(arguments.json, figures)


def _settings(changes: list[str]) -> dict[str, dict[str, str]]:
    """What differs from the preset for each model, as text."""
    found = {name: {key: str(v) for key, v in own.items()} for name, own in SETTINGS.items()}
    for change in changes:
        name, _, setting = change.partition(".")
        key, _, value = setting.partition("=")
        found[name][key] = value
    return found


def race(
    configs: dict[str, DualCNNConfig], texts: Split, minutes: float, look: bool
) -> dict[str, Any]:
    """Train models for so many CPU minutes each, and measure them.

    They take turns, so that what else the machine does slows all alike.
    """
    trials = {name: _make(name, config, texts) for name, config in configs.items()}
    each = dict.fromkeys(configs, 0.0)
    for step in range(1 + TRIAL):
        for name, trial in trials.items():
            seconds = _timed(trial, step)
            each[name] += seconds / TRIAL if step else 0.0
    steps = {name: max(10, int(minutes * 60 / each[name])) for name in configs}
    contenders = {
        n: _make(n, config.replace(steps=steps[n]), texts) for n, config in configs.items()
    }
    done, used = dict.fromkeys(configs, 0), dict.fromkeys(configs, 0.0)
    while done != steps:
        name = min((n for n in configs if done[n] < steps[n]), key=lambda n: done[n] / steps[n])
        used[name] += _timed(contenders[name], done[name])
        done[name] += 1
        if name == next(iter(configs)) and done[name] % 50 == 0:
            print(f"{done[name]} of {steps[name]} steps of {name}", flush=True)
    assert texts.validation is not None
    measured = Tokens.of(texts.validation.reshape(-1)) if look else texts.held_out
    return {
        name: {
            "parameters": contender.parameters,
            "steps": steps[name],
            "tokens": steps[name] * configs[name].training.batch * configs[name].training.chunk,
            "cpu_minutes": used[name] / 60,
            ("validation" if look else "held_out"): contender.losses(measured),
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


def _timed(contender: Ours | Other, step: int) -> float:
    """Do a step; returns its CPU seconds."""
    began = time.process_time()
    contender.step(step)
    return time.process_time() - began


def _make(name: str, config: DualCNNConfig, texts: Split) -> Ours | Other:
    torch.manual_seed(config.seed)  # of the first weights
    if name == "ours":
        return Ours(config, texts)
    size = DualCNN(PRESETS["nano"].replace(vocab_size=config.vocab_size)).parameter_count()
    return Other(_baseline(name, size, config), config, texts)


def _baseline(name: str, size: int, config: DualCNNConfig) -> Baseline:
    if name == "gpt":
        return matched_gpt(size, config.vocab_size, config.training.chunk, config.dropout)
    make = matched_gru if name == "gru" else matched_min_gru
    return make(size, config.vocab_size, config.dropout)


def count(texts: Split, vocab: int, look: bool) -> dict[str, Any]:
    """Count runs of the trained text; the order is the validation text's choice."""
    trained = texts.trained.windows(torch.zeros(1, dtype=torch.long), len(texts.trained))
    tokens = trained[0].numpy()
    assert texts.validation is not None
    pieces = [piece.numpy() for piece in texts.validation]
    began = time.process_time()
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
        "cpu_minutes": (time.process_time() - began) / 60,
    }
    if look:
        return figures
    held = texts.held_out.take(torch.arange(len(texts.held_out))).numpy()
    return {**figures, "held_out": {"loss": model.loss(held)}}


if __name__ == "__main__":
    main()

"""Ours and the baselines, each trained for as many CPU minutes by the same trainer.

    python benchmarks/equal_time.py CORPUS [--minutes 10] [--models ours,gru,mingru,gpt,ngram]
        [--set NAME.KEY=VALUE] [--look] [--json FILE]

All have as many trained parameters as the preset ``nano``, to 3 %, and the same streams, optimiser,
schedule and average of the weights. A few steps are timed first, and the schedule is as long as the
minutes allow. Held-out text is measured once, at the end; ``--look`` measures the validation text
instead, to choose settings by. What is in the JSON file of other models stays there.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import machine
import torch
from baselines import Baseline, matched_gpt, matched_gru
from min_gru import matched_min_gru
from ngram import NGram
from training import Other, Ours

from rillet.train import PRESETS, DualCNN, DualCNNConfig, make_tokenizer, read_corpus
from rillet.train.streams import Split, split
from rillet.train.token_file import Tokens

SETTINGS: dict[str, dict[str, Any]] = {
    "ours": {},
    # Chosen by --look, a minute each (docs/benchmarks.md says what was tried).
    "gru": {"learning_rate": 5e-3},
    "mingru": {"learning_rate": 5e-3},
    "gpt": {"learning_rate": 3e-3, "dropout": 0.0, "batch": 8, "average": 0.998},
}
"""What differs from the preset ``nano``."""

ORDERS = range(3, 9)
"""Longest runs that are tried for the counts; the validation text chooses."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus")
    parser.add_argument("--minutes", type=float, default=10)
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
    for name in arguments.models.split(","):
        if name == "ngram":
            figures = count(texts, base.vocab_size, arguments.look)
        else:
            changes = {key: str(value) for key, value in SETTINGS[name].items()}
            for setting in arguments.set:
                whose, _, change = setting.partition(".")
                if whose == name:
                    key, _, value = change.partition("=")
                    changes[key] = value
            config = base.replace_text(changes)
            figures = train(name, config, texts, arguments.minutes, arguments.look)
            figures["settings"] = changes
        print(name, json.dumps(figures), flush=True)
        if arguments.json and not arguments.look:
            known = {}
            if arguments.json.exists():
                known = json.loads(arguments.json.read_text())["figures"]
            machine.write(arguments.json, {**known, name: figures})


def train(
    name: str, config: DualCNNConfig, texts: Split, minutes: float, look: bool
) -> dict[str, Any]:
    """Train a model for so many CPU minutes, and measure it."""
    trial = _make(name, config, texts)
    trial.step(0)  # compiles, allocates
    began = time.process_time()
    for step in range(1, 6):
        trial.step(step)
    each = (time.process_time() - began) / 5
    steps = max(10, int(minutes * 60 / each))
    contender = _make(name, config.replace(steps=steps), texts)
    began = time.process_time()
    for step in range(steps):
        contender.step(step)
    seconds = time.process_time() - began
    assert texts.validation is not None
    measured = Tokens.of(texts.validation.reshape(-1)) if look else texts.held_out
    return {
        "parameters": contender.parameters,
        "steps": steps,
        "tokens": steps * config.training.batch * config.training.chunk,
        "cpu_minutes": seconds / 60,
        ("validation" if look else "held_out"): contender.losses(measured),
    }


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

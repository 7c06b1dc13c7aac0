"""Characters against BPE, at equal parameters, at equal bytes and at equal work.

    python benchmarks/vocabularies.py CORPUS --held-out FILE --json FILE [--only NAME,...]
        [--steps 400] [--characters 200000] [--runs build/vocabularies]
    python benchmarks/vocabularies.py --json FILE --markdown

The model to compare with is ``nano`` with 1,024 tokens. Beside it, for each vocabulary,

- *at equal parameters*: the width that gives as many of them, trained for as many tokens;
- *at equal bytes*: the width that gives weights of as many bytes in int8, for as many tokens; a
  token's row of the embedding stays in float32, so that smaller vocabularies may be wider;
- *at equal work*: the width that gives as many multiplications a character, trained for as many
  characters; longer tokens allow more of them.

At equal bytes, larger vocabularies would have fewer parameters than at equal parameters, and so
would smaller ones at equal work. These are left out: what loses with more need not be tried with
fewer. Each model is trained and exported in int8 by the commands that a user types. It reads the
first characters of the held-out text, from zeros. Then all take turns in short bursts of steps. A
row is kept as long as its bundle is there: the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

import rillet.runtime
from lib.baselines import nearest_width
from lib.bursts import engine_burst, least_times
from lib.process import run_rillet
from lib.resumable_results import ResumableResults
from rillet.runtime.files import make_folder, sha256_bytes, write_atomic
from rillet.train import PRESETS, DualCNN, DualCNNConfig, make_tokenizer

VOCABULARIES = (0, 512, 1024, 2048, 4096)
"""Tokens of each tokenizer; 0 is one for each character."""

MIDDLE = 1024
"""The vocabulary that the others are compared with."""

DROPOUT = 0.02
"""What a text of 8 MB wants of ``nano``."""

BURSTS, BEFORE, STEPS = 30, 2_000, 300
"""Bursts of each bundle; tokens that its stream has read before; steps of a burst."""

COLUMNS = {
    "width": "width",
    "parameters": "parameters",
    "characters_per_token": "characters a token",
    "bundle_kb": "int8 bundle, kB",
    "token_us": "µs a token",
    "character_us": "µs a character",
    "without_memory": "network alone",
    "loss": "with the memory",
}

Figures = dict[str, Any]


@dataclass(frozen=True)
class Variant:
    """A model to train.

    Attributes:
        name: Its name in the results.
        vocabulary: One of :data:`VOCABULARIES`.
        config: Its shape and its rate.
        steps: How long to train it.
    """

    name: str
    vocabulary: int
    config: DualCNNConfig
    steps: int

    def options(self) -> list[str]:
        """What ``rillet train`` is told of it."""
        config = self.config
        settings = {
            "width": config.width,
            "wave_features": config.wave_features,
            "hidden": config.hidden,
            "learning_rate": config.training.learning_rate,
            "dropout": config.dropout,
            "bpe_vocab": self.vocabulary or MIDDLE,
        }
        kind = "bpe" if self.vocabulary else "char"
        own = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        return ["--preset", "nano", "--tokenizer", kind, "--steps", str(self.steps), *own]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus", type=Path, nargs="?")
    parser.add_argument("--held-out", type=Path, metavar="FILE")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--only", metavar="NAME,...")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--characters", type=int, default=200_000)
    parser.add_argument("--runs", type=Path, default=Path("build/vocabularies"))
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()
    if arguments.markdown:
        print(markdown(json.loads(arguments.json.read_text(encoding="utf-8"))))
        return
    if arguments.corpus is None or arguments.held_out is None:
        parser.error("CORPUS and --held-out are required")
    corpus = arguments.corpus.read_text(encoding="utf-8")
    unseen = arguments.held_out.read_text(encoding="utf-8")[: arguments.characters]
    about = {
        "corpus": arguments.corpus.name,
        "corpus_sha256": sha256_bytes(corpus.encode()),
        "held_out": arguments.held_out.name,
        "characters": len(unseen),
        "steps": arguments.steps,
    }
    results = ResumableResults(arguments.json, about)
    make_folder(arguments.runs)
    text = arguments.runs / "held-out.txt"
    write_atomic(text, unseen.encode())
    known = {variant.name: variant for variant in variants(corpus, arguments.steps)}
    names = arguments.only.split(",") if arguments.only else list(known)
    if unknown := sorted(set(names) - set(known)):
        parser.error(f"--only has {unknown[0]!r}; choose from {', '.join(known)}")
    chosen = [known[name] for name in names]
    bundles = {variant.name: arguments.runs / variant.name / "bundle" for variant in chosen}
    for variant in chosen:
        # All bundles are needed below, since only times of the same run compare.
        if results.get("rows", variant.name) is None or not bundles[variant.name].is_dir():
            row = measured(variant, arguments.corpus, text, arguments.runs / variant.name)
            results.put("rows", variant.name, row)
            print(variant.name, json.dumps(row), flush=True)
    for name, micros in timed(bundles, unseen).items():
        row = results.get("rows", name)
        per_token = row["characters_per_token"]
        results.put("rows", name, {**row, "token_us": micros, "character_us": micros / per_token})


def variants(corpus: str, steps: int) -> Iterator[Variant]:
    """All models to train: the middle one, and the others that are equal to it in something."""
    shares, sizes = {}, {}
    for vocabulary in VOCABULARIES:
        tokenizer = make_tokenizer(corpus, "bpe" if vocabulary else "char", vocabulary or None)
        sizes[vocabulary] = tokenizer.vocab_size
        shares[vocabulary] = len(corpus) / len(tokenizer.encode(corpus))
    middle = shaped(sizes[MIDDLE], PRESETS["nano"].width)
    work = multiplications(middle) / shares[MIDDLE]
    yield Variant(title(MIDDLE), MIDDLE, middle, steps)
    for vocabulary in VOCABULARIES:
        if vocabulary == MIDDLE:
            continue
        size, share = sizes[vocabulary], shares[vocabulary]
        config = nearest(size, parameter_count(middle), parameter_count)
        yield Variant(title(vocabulary, "at equal parameters"), vocabulary, config, steps)
        if vocabulary < MIDDLE:
            config = nearest(size, weight_bytes(middle), weight_bytes)
            yield Variant(title(vocabulary, "at equal bytes"), vocabulary, config, steps)
        else:
            config = nearest(size, work * share, multiplications)
            own = round(steps * shares[MIDDLE] / share)
            yield Variant(title(vocabulary, "at equal work"), vocabulary, config, own)


def title(vocabulary: int, what: str = "") -> str:
    """A variant's name."""
    return f"{f'BPE {vocabulary}' if vocabulary else 'characters'} {what}".strip()


def shaped(vocab_size: int, width: int) -> DualCNNConfig:
    """``nano`` of another width; the rate falls with it as from ``nano`` to ``micro``."""
    nano, micro = PRESETS["nano"], PRESETS["micro"]
    slope = math.log(micro.training.learning_rate / nano.training.learning_rate)
    slope /= math.log(micro.width / nano.width)
    rate = nano.training.learning_rate * max(1.0, width / nano.width) ** slope
    return nano.replace(
        vocab_size=vocab_size,
        width=width,
        wave_features=width,
        hidden=4 * round(nano.hidden / nano.width * width / 4),
        dropout=DROPOUT,
        learning_rate=float(f"{rate:.2g}"),
    )


def nearest(
    vocab_size: int, target: float, measure: Callable[[DualCNNConfig], int]
) -> DualCNNConfig:
    """The width whose measure is nearest to a target."""
    heads = PRESETS["nano"].attention_heads
    widths = range(4 * heads, 257, heads)
    return shaped(
        vocab_size, nearest_width(widths, target, lambda w: measure(shaped(vocab_size, w)))
    )


@lru_cache
def parameter_count(config: DualCNNConfig) -> int:
    """Trained parameters."""
    return DualCNN(config).parameter_count()


def multiplications(config: DualCNNConfig) -> int:
    """Multiplications of a step with trained weights: all but those of the embedding."""
    return parameter_count(config) - config.vocab_size * config.width


def weight_bytes(config: DualCNNConfig) -> int:
    """Bytes of the weights in int8, but for what no vocabulary and no width changes."""
    return multiplications(config) + 4 * config.vocab_size * (config.width + config.code_width)


def measured(variant: Variant, corpus: Path, held_out: Path, folder: Path) -> Figures:
    """Train a model, export it and score the held-out text, by the commands."""
    run, bundle = folder / "run", folder / "bundle"
    options = ["--corpus", str(corpus), "--validation", str(held_out), "--threads", "1"]
    run_rillet("train", *options, "--out", str(run), "--overwrite", *variant.options())
    options = ["--native-only", "--precision", "int8", "--parity-steps", "1000"]
    run_rillet("export", str(run), "--out", str(bundle), *options)
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    model = rillet.runtime.load(bundle)
    text = held_out.read_text(encoding="utf-8")
    alone, score = (model.session(memory=memory).score([text]) for memory in (False, True))
    return {
        "width": variant.config.width,
        "hidden": variant.config.hidden,
        "parameters": summary["parameters"],
        "characters_per_token": score.characters / score.tokens,
        "bundle_kb": sum(file.stat().st_size for file in bundle.iterdir()) / 1e3,
        "loss": score.bits_per_char * math.log(2),
        "without_memory": alone.bits_per_char * math.log(2),
        "steps": variant.steps,
        "learning_rate": variant.config.training.learning_rate,
        "minutes": summary["seconds"] / 60,
    }


def timed(bundles: dict[str, Path], text: str) -> dict[str, float]:
    """Microseconds of a step of each bundle, in turns, on the same text."""
    bursts = {}
    for name, path in bundles.items():
        model = rillet.runtime.load(path, "native")
        tokens = np.array(model.tokenizer.encode(text), np.int64)
        bursts[name] = engine_burst(model.engine, tokens[:BEFORE], tokens[BEFORE:][:STEPS])
    return least_times(bursts, BURSTS)


def markdown(content: Figures) -> str:
    """The table of a results file, the best first."""
    lines = ["| | " + " | ".join(COLUMNS.values()) + " |", "| --- " * (len(COLUMNS) + 1) + "|"]
    for name, row in sorted(content["rows"].items(), key=lambda pair: float(pair[1]["loss"])):
        cells = (f"{row[key]:,}" if key in ("width", "parameters") else f"{row[key]:.4g}"
                 for key in COLUMNS)  # fmt: skip
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

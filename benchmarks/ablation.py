"""The worth of each part: held-out loss, size and speed of variants of the default preset.

    python benchmarks/ablation.py CORPUS --json FILE [--steps N] [--only NAME,...]
        [--seed N] [--tokenizer KIND] [--vocab-size N] [--threads N] [--no-decode]
    python benchmarks/ablation.py --json FILE --markdown

Trains one model per variant with the same steps, batches and seed, and evaluates it on the last
tenth of CORPUS as one stream, in nats per character. A variant is named by its changes, such as
``width=32`` or ``reservoir=none+memory=0``: any settings of the model and of its training. Each
result is saved at once and variants in FILE are not trained again, so the run can be split. The
time of a decode step does not depend on the weights: when all variants are trained, fresh graphs of
all variants in FILE take turns in short bursts, and the fastest burst of each counts.
``--markdown`` prints the tables of FILE.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lib.bursts import least_times
from lib.results import describe_machine
from lib.samples import no_words
from rillet.runtime.errors import ConfigError
from rillet.runtime.files import sha256_bytes, write_atomic
from rillet.runtime.tokenizer import Tokenizer
from rillet.train import (
    PRESETS,
    DualCNN,
    DualCNNConfig,
    DualCNNTrainer,
    evaluate,
    make_tokenizer,
    read_corpus,
)
from rillet.train.data.streams import Split, split
from rillet.train.data.token_file import Tokens
from rillet.train.model.state import state_bytes

DEFAULT = "default"

GROUPS = {
    "Second CNN": ["architecture=single_cnn"],
    "Reservoir": [
        "reservoir=standard",
        "reservoir=none",
        "memory=0",
        "reservoir=standard+memory=0",
        "reservoir=none+memory=0",
    ],
    "Kind of memory": ["memory_key=reservoir", "memory_key=suffix", "memory=0"],
    "Contexts": [
        "contexts=word",
        "contexts=2 4 word",
        "contexts=4 6 word",
        "contexts=1 2 3 word",
        "contexts=1 2 3 4 5 6 7 word",
    ],
    "Slots": ["memory=16384", "memory=262144"],
    "Online weights": ["adaptation=false"],
    "Memory with keys": [
        "memory_key=reservoir",
        "memory_key=reservoir+memory=256",
        "memory_key=reservoir+memory=4096",
        "memory_key=reservoir+key_width=16",
        "memory_key=reservoir+key_width=64",
    ],
    "Wave window": ["wave_window=8", "wave_window=16", "wave_window=64"],
    "Reservoir's size": ["reservoir_size=64", "reservoir_size=256", "reservoir_size=512"],
    "Reservoir's matrix": [
        "reservoir_density=0.05",
        "reservoir_density=0.5",
        "reservoir_structure=blocks+reservoir_blocks=8",
        "reservoir_structure=blocks+reservoir_blocks=16",
    ],
    "Spectral radius": ["spectral_radius=0.5", "spectral_radius=0.8", "spectral_radius=0.99"],
    "Token codes": ["codes=random"],
    "Attention window": ["attention_window=16", "attention_window=64"],
    "Share of the loss without the memory": ["network_share=0"],
}
"""Tables of variants, each below the default; a variant may be in several tables."""

NAMES = list(dict.fromkeys([DEFAULT, *(name for names in GROUPS.values() for name in names)]))

_BURSTS, _STEPS = 30, 300
"""Bursts of each variant, and steps per burst."""

Figures = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus", nargs="?")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument(
        "--only", help=f"comma-separated: changes of your own, or of {' '.join(NAMES)}"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tokenizer", default="auto", help="char, byte or bpe")
    parser.add_argument("--vocab-size", type=int, help="of bpe")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--no-decode", action="store_true", help="do not time decoding")
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()
    if arguments.markdown:
        print(markdown(json.loads(arguments.json.read_text(encoding="utf-8"))))
        return
    names = arguments.only.split(",") if arguments.only else NAMES
    if arguments.corpus is None:
        parser.error("CORPUS is required")
    for name in names:
        try:
            configure(PRESETS["nano"], name)
        except ConfigError as error:
            parser.error(f"{name} is no variant: {error}")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    text = read_corpus(arguments.corpus)
    tokenizer = make_tokenizer(text, arguments.tokenizer, arguments.vocab_size)
    base = PRESETS["nano"].replace(
        vocab_size=tokenizer.vocab_size, steps=arguments.steps, seed=arguments.seed
    )
    settings = {
        "config": base.to_dict(),
        "corpus_sha256": sha256_bytes(text.encode()),
        "tokenizer_sha256": sha256_bytes(tokenizer.source.encode()),
    }
    figures: Figures = {**settings, "variants": {}}
    if arguments.json.exists():
        figures = json.loads(arguments.json.read_text(encoding="utf-8"))["figures"]
        if json.loads(json.dumps(settings)) != {name: figures.get(name) for name in settings}:
            parser.error(
                f"{arguments.json} has results of another corpus, tokenizer, preset, --steps or "
                "--seed"
            )
    texts = split(Tokens.of(tokenizer.encode(text)), base.training)
    variants = figures["variants"]
    for name in names:
        if name not in variants:
            variants[name] = _train(configure(base, name), texts, tokenizer)
            _save(arguments.json, figures)
            print(f"{name}: {_row(variants[name])}", flush=True)
    if arguments.no_decode:
        return
    # Time all of them again, since only times of the same run compare.
    if any("decode_us" not in row for row in variants.values()):
        configs = {name: configure(base, name) for name in variants}
        for name, micros in _time_decoding(configs, texts.trained.tokens).items():
            variants[name]["decode_us"] = micros
        _save(arguments.json, figures)
    for name in names:
        print(f"{name}: {_row(variants[name])}")


def configure(base: DualCNNConfig, name: str) -> DualCNNConfig:
    """The configuration of a variant, by its name."""
    if name == DEFAULT:
        return base
    changes = (change.partition("=") for change in name.split("+"))
    return base.replace_text({key: value for key, _, value in changes})


def _train(config: DualCNNConfig, texts: Split, tokenizer: Tokenizer) -> Figures:
    """Train and evaluate a variant; the seconds include evaluations on the validation text."""
    model = DualCNN(config).fit(texts.trained.tokens, tokenizer.token_bytes)
    start, start_cpu = time.perf_counter(), time.process_time()
    result = DualCNNTrainer(model).train(texts.trained, texts.validation)
    seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    evaluation = evaluate(model, texts.held_out)
    share = evaluation.tokens / len(tokenizer.decode(texts.held_out[1:].tensor().tolist()))
    return {
        "loss": evaluation.loss * share,
        "without_memory": evaluation.without_memory * share,
        "first": evaluation.first * share,
        "parameters": model.parameter_count(),
        "state_bytes": state_bytes(config),
        "steps": result.steps,
        "train_seconds": seconds,
        "train_cpu_seconds": cpu,
    }


def _time_decoding(configs: dict[str, DualCNNConfig], tokens: Tokens) -> dict[str, float]:
    """Microseconds of a decode step on ONNX Runtime, one thread, the greedy choice included."""
    from lib.stepping import Steps  # training needs neither onnx nor an engine
    from rillet.export.graphs.build import decode_graph

    sample = tokens[:_STEPS].tensor().numpy().astype(np.int64)
    bursts = {}
    for name, config in configs.items():
        model = DualCNN(config).fit(tokens[:100_000], no_words(config.vocab_size))
        bursts[name] = Steps(decode_graph(model.eval()), sample)
    return least_times(bursts, _BURSTS)


def _save(path: Path, figures: Figures) -> None:
    content = {"machine": describe_machine(), "figures": figures}
    write_atomic(path, (json.dumps(content, indent=2) + "\n").encode())


def _row(row: Figures) -> str:
    decode = f"{row['decode_us']:.1f} µs a token" if "decode_us" in row else "not timed"
    return (
        f"{row['loss']:.4f} with the memory, {row['without_memory']:.4f} without; "
        f"{row['parameters']:,} trained parameters, {row['train_seconds']:.0f} s, {decode}"
    )


def markdown(content: Figures) -> str:
    """The tables of a results file as Markdown."""
    figures, machine = content["figures"], content["machine"]
    variants, training = figures["variants"], figures["config"]["training"]
    lines = [
        f"Preset `nano`, {training['steps']:,} steps of {training['batch']} x {training['chunk']} "
        f"tokens, seed {figures['config']['seed']}; corpus sha256 "
        f"`{figures['corpus_sha256'][:8]}…`. {machine['processor']}, {machine['cores']} cores, "
        f"torch {machine['torch']}, onnxruntime {machine['onnxruntime']}."
    ]
    others = [name for name in variants if name not in NAMES]
    for group, names in {**GROUPS, "Others": others}.items():
        if not set(variants).intersection(names):
            continue
        lines += ["", f"### {group}", ""]
        lines.append(
            "| variant | with memory | without | trained | training, s | state, kB | decode, µs |"
        )
        lines.append("| --- | --- | --- | --- | --- | --- | --- |")
        for name in (name for name in (DEFAULT, *names) if name in variants):
            row = variants[name]
            decode = f"{row['decode_us']:.1f}" if "decode_us" in row else "–"  # noqa: RUF001
            lines.append(
                f"| `{name}` | {row['loss']:.4f} | {row['without_memory']:.4f} "
                f"| {row['parameters']:,} | {row['train_seconds']:.0f} "
                f"| {row['state_bytes'] / 1e3:.1f} | {decode} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()

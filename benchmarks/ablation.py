"""What each part is worth: held-out loss, size and speed of variants of the default preset.

    python benchmarks/ablation.py CORPUS --json FILE [--steps N] [--only NAME,...]
        [--threads N] [--no-decode]
    python benchmarks/ablation.py --json FILE --markdown

Trains one model for each variant with the same steps, batches and seed, and measures it on
the last tenth of CORPUS as one stream. A variant is named by what it changes, such as
``memory=256`` or ``reservoir=none+memory=0``. Each result is written at once, and a variant
that FILE already has is not trained again, so that the whole can be run in pieces. The time
of a decode step does not depend on the weights: once no variant is left to train, graphs of
all that FILE has take turns in short bursts, and the least time of each counts.
``--markdown`` prints the tables of FILE.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import machine
from rillet.runtime.files import sha256_bytes, write_atomic
from rillet.runtime.state_table import StateTensor
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
        "reservoir=none+memory_key=suffix",
        # Without the memory, which it is the key of, the reservoir is a mere input.
        "memory=0",
        "reservoir=standard+memory=0",
        "reservoir=none+memory=0",
    ],
    "Memory's capacity": ["memory=0", "memory=256", "memory=4096"],
    "Memory's key": [
        "key_width=16",
        "key_width=64",
        "memory_key=suffix",
        "memory=0",
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
"""Tables of variants; each begins with the default. One may stand in several."""

NAMES = list(dict.fromkeys([DEFAULT, *(name for names in GROUPS.values() for name in names)]))

_BURSTS, _BURST_STEPS = 30, 300

Figures = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus", nargs="?")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--only", help=f"of {' '.join(NAMES)}")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--no-decode", action="store_true", help="leave the decode times out")
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()
    if arguments.markdown:
        print(markdown(json.loads(arguments.json.read_text(encoding="utf-8"))))
        return
    names = arguments.only.split(",") if arguments.only else NAMES
    unknown = sorted(set(names) - set(NAMES))
    if unknown or arguments.corpus is None:
        parser.error(f"no such variant: {', '.join(unknown)}" if unknown else "give a CORPUS")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    text = read_corpus(arguments.corpus)
    tokenizer = make_tokenizer(text)
    base = PRESETS["nano"].replace(vocab_size=tokenizer.vocab_size, steps=arguments.steps)
    about = {"config": base.to_dict(), "corpus_sha256": sha256_bytes(text.encode())}
    figures: Figures = {**about, "variants": {}}
    if arguments.json.exists():
        figures = json.loads(arguments.json.read_text(encoding="utf-8"))["figures"]
        if json.loads(json.dumps(about)) != {name: figures[name] for name in about}:
            parser.error(f"{arguments.json} has results of another corpus, preset or --steps")
    texts = split(Tokens.of(tokenizer.encode(text)), base.training)
    variants = figures["variants"]
    for name in names:
        if name not in variants:
            variants[name] = _train(configure(base, name), texts)
            _save(arguments.json, figures)
            print(f"{name}: {_row(variants[name])}", flush=True)
    if arguments.no_decode:
        return
    # All of them anew, since only times that took turns compare.
    if any("decode_us" not in found for found in variants.values()):
        configs = {name: configure(base, name) for name in variants}
        for name, micros in _time_decoding(configs, texts.trained.tokens).items():
            variants[name]["decode_us"] = micros
        _save(arguments.json, figures)
    for name in names:
        print(f"{name}: {_row(variants[name])}")


def configure(base: DualCNNConfig, name: str) -> DualCNNConfig:
    """The configuration of a variant."""
    if name == DEFAULT:
        return base
    changes = (change.partition("=") for change in name.split("+"))
    return base.replace_text({key: value for key, _, value in changes})


def _train(config: DualCNNConfig, texts: Split) -> Figures:
    """Train a variant and measure it; the seconds include looks at the validation text."""
    model = DualCNN(config).fit(texts.trained.tokens)
    start, start_cpu = time.perf_counter(), time.process_time()
    result = DualCNNTrainer(model).train(texts.trained, texts.validation)
    seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    found = evaluate(model, texts.held_out)
    return {
        "loss": found.loss,
        "without_memory": found.without_memory,
        "first": found.first,
        "validation": result.validation_loss,
        "parameters": model.parameter_count(),
        "state_bytes": state_bytes(config),
        "steps": result.steps,
        "train_seconds": seconds,
        "train_cpu_seconds": cpu,
    }


@dataclass(frozen=True)
class _Graph:
    """As much of a bundle as an engine needs to step: no gate, no second graph."""

    path: Path
    state: list[StateTensor]
    vocab_size: int

    def graph(self, kind: str) -> Path:
        return self.path


def _time_decoding(configs: dict[str, DualCNNConfig], tokens: Tokens) -> dict[str, float]:
    """Microseconds of a decode step in ONNX Runtime on one thread, greedy choice included."""
    # Training needs no exporter.
    import onnx

    import decode
    from rillet.export.graphs.build import decode_graph
    from rillet.export.graphs.metadata import state_table
    from rillet.runtime.engines.ort.host_engine import OnnxEngine

    sample = tokens[:_BURST_STEPS].tensor().numpy().astype(np.int64)
    bursts = {}
    with tempfile.TemporaryDirectory() as folder:
        for index, (name, config) in enumerate(configs.items()):
            path = Path(folder) / f"{index}.onnx"
            model = DualCNN(config).fit(tokens[:100_000]).eval()
            onnx.save(decode_graph(model), path)
            graph = _Graph(path, state_table(config), config.vocab_size)
            bursts[name] = decode._step_burst(OnnxEngine(graph, "cpu", threads=1), sample)
            bursts[name]()  # loads the graph while the file is there, and fills the memory
    best = dict.fromkeys(bursts, float("inf"))
    for _ in range(_BURSTS):
        for name, burst in bursts.items():
            start = time.perf_counter()
            count = burst()
            best[name] = min(best[name], (time.perf_counter() - start) / count * 1e6)
    return best


def _save(path: Path, figures: Figures) -> None:
    content = {"machine": machine.describe(), "figures": figures}
    write_atomic(path, (json.dumps(content, indent=2) + "\n").encode())


def _row(found: Figures) -> str:
    decode = f"{found['decode_us']:.1f} µs a token" if "decode_us" in found else "not timed"
    return (
        f"{found['loss']:.4f} with the memory, {found['without_memory']:.4f} without; "
        f"{found['parameters']:,} trained parameters, {found['train_seconds']:.0f} s, {decode}"
    )


def markdown(content: Figures) -> str:
    """The tables of a results file, for the documentation."""
    figures, about = content["figures"], content["machine"]
    variants, training = figures["variants"], figures["config"]["training"]
    lines = [
        f"Preset `nano`, {training['steps']:,} steps of {training['batch']} x {training['chunk']} "
        f"tokens, seed {figures['config']['seed']}; corpus sha256 "
        f"`{figures['corpus_sha256'][:8]}…`. {about['processor']}, {about['cores']} cores, torch "
        f"{about['torch']}, onnxruntime {about['onnxruntime']}."
    ]
    for group, names in GROUPS.items():
        lines += ["", f"### {group}", ""]
        lines.append(
            "| variant | with memory | without | trained | training, s | state, kB | decode, µs |"
        )
        lines.append("| --- | --- | --- | --- | --- | --- | --- |")
        for name in (name for name in (DEFAULT, *names) if name in variants):
            found = variants[name]
            decode = f"{found['decode_us']:.1f}" if "decode_us" in found else "–"  # noqa: RUF001
            lines.append(
                f"| `{name}` | {found['loss']:.4f} | {found['without_memory']:.4f} "
                f"| {found['parameters']:,} | {found['train_seconds']:.0f} "
                f"| {found['state_bytes'] / 1e3:.1f} | {decode} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()

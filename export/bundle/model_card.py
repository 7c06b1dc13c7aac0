"""The model card of a bundle, built from measured figures only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ...runtime.text_sample import TEXT_SAMPLE_FILE
from ...runtime.tokenizer import Tokenizer
from .commands import commands_of_bundle, generate_command
from .continued import runs_of
from .json_file import dictionary

__all__ = ["render_card"]

_ARCHITECTURES = {"dual_cnn": "two CNNs over a wave buffer", "single_cnn": "one CNN"}


def render_card(
    name: str,
    manifest: dict[str, Any],
    sizes: Mapping[str, int],
    times: Mapping[str, Any],
    tokenizer: Tokenizer,
) -> str:
    """Write the model card as Markdown.

    Args:
        name: The bundle's name.
        manifest: The content of ``bundle.json``.
        sizes: Size of each file in bytes.
        times: Figures of the exporting machine; see :func:`.timing.measure_times`.
        tokenizer: The bundle's tokenizer.
    """
    lines = [
        f"# {name}",
        "",
        "A streaming text generator with constant memory, made by rillet.",
        "",
        "```sh",
        generate_command(name, tokenizer, "--max-new-tokens", "200", "--seed", "1"),
        "```",
        "",
        *_model(manifest),
        *_origin(name, manifest),
        *_loss(manifest),
        *_taught(manifest),
        *_sample(manifest),
        *_parity(manifest),
        *_size(manifest, sizes),
        # The figures of one machine come last: all above them is the same on every machine.
        *_time(times),
    ]
    return "\n".join(lines) + "\n"


def _model(manifest: dict[str, Any]) -> list[str]:
    training, model = manifest["training"], manifest["model"]
    tokens = training.get("trained_tokens")
    rows = {
        "trained parameters": f"{training['parameters']:,}" if "parameters" in training else None,
        "vocabulary": f"{model['vocab_size']:,} tokens",
        "architecture": _ARCHITECTURES[model["architecture"]],
        "reservoir": _reservoir(model),
        "memory": _memory(model),
        "precision": manifest["precision"],
        "trained on": ", after ".join(runs_of(training, "corpus")) or None,
        "training tokens": f"{tokens:,}" if tokens is not None else None,
        "steps": _steps(training),
        "training seed": training.get("config", {}).get("seed"),
    }
    table = [
        f"| {key} | {str(value).replace('|', chr(92) + '|')} |"
        for key, value in rows.items()
        if value is not None
    ]
    return ["## Model", "", "| | |", "| --- | --- |", *table]


def _steps(training: dict[str, Any]) -> str | None:
    """Steps of the checkpoint, and how many were planned if these are not all."""
    runs = runs_of(training, "steps")
    planned = training.get("config", {}).get("steps", 0)
    if runs and planned > training.get("steps", planned):
        runs[0] += f" (the best checkpoint; {planned:,} were planned)"
    return ", after ".join(runs) or None


def _reservoir(model: dict[str, Any]) -> str:
    kind, units = model["reservoir"], f"{model['reservoir_size']:,} units"
    if kind == "none":
        return "none"
    attention = f", attention over the last {model['attention_window']:,} states"
    return f"{kind}, {units}{attention if kind == 'attentive' else ''}"


def _memory(model: dict[str, Any]) -> str:
    if not model["memory"]:
        return "none"
    if model["memory_key"] == "contexts":
        contexts = ", ".join(model["contexts"].split())
        return f"{model['memory']:,} slots of what followed the last tokens ({contexts})"
    suffix = f"the last {model['suffix_length']:,} tokens"
    key = suffix if model["memory_key"] == "suffix" else "the reservoir's state"
    return f"the last {model['memory']:,} steps, keyed by {key}"


def _origin(name: str, manifest: dict[str, Any]) -> list[str]:
    lines = []
    if commands := commands_of_bundle(name, manifest):
        lines += ["", "Made with:", "", "```sh", *commands, "```"]
    fallbacks = manifest["training"].get("fallbacks")
    if fallbacks:
        lines += ["", "Parts that could not be set up, and their replacements:", ""]
        lines += [f"- {fallback}" for fallback in fallbacks]
    return lines


def _loss(manifest: dict[str, Any]) -> list[str]:
    lines = ["", "## Held-out loss", ""]
    held_out = manifest["training"].get("held_out")
    if held_out:
        apart = "were not trained on"
        if manifest["training"].get("held_out_seen"):
            apart = "the last run did not train on, though one before may have"
        size = ""
        if (trained := manifest.get("trained_memory")) is not None:
            size = f", with a memory of {trained:,} slots as in training"
        lowered = dictionary(manifest["training"].get("bundle")).get("precision", "fp32")
        if lowered != "fp32":
            size += f", before the weights were quantized to {lowered}"
        elif manifest["precision"] != "fp32":
            size += ", in float32"
        lines += [
            f"Over {held_out['tokens']:,} tokens that {apart}, read as one stream{size}:",
            "",
            "| | nats per token | bits per token |",
            "| --- | --- | --- |",
        ]
        keys = {"with the memory": "loss", "without it": "without_memory"}
        for label, key in (keys if manifest["model"]["memory"] else {"no memory": "loss"}).items():
            value = held_out[key]
            lines.append(f"| {label} | {value:.4f} | {value / math.log(2):.4f} |")
    else:
        lines.append("Not measured.")
    lowered = manifest.get("quantization")
    if lowered:
        lines += [
            "",
            f"Quantized to {manifest['precision']} ({lowered['method']}): {lowered['loss']:.4f} "
            f"nats per token over {lowered['tokens']:,} tokens of {lowered['text']}, "
            f"{lowered['loss_fp32']:.4f} in float32.",
        ]
    return lines


def _taught(manifest: dict[str, Any]) -> list[str]:
    """What streams begin with, and what it is worth."""
    taught = manifest.get("taught")
    if not taught:
        return []
    part = "" if taught["part"] == "all of it" else f", {taught['part']}"
    lines = [
        "",
        "## Taught",
        "",
        f"Streams begin with what the memory learnt from {taught['text']}{part}: "
        f"{taught['tokens']:,} tokens, in {taught['slots']:,} slots (`{taught['file']}`). "
        "With `--untaught`, they begin at zeros.",
        "",
    ]
    figures = taught.get("measured")
    if not figures:
        return [*lines, f"What this is worth was not measured: {taught['not_measured']}."]
    lowered = "" if manifest["precision"] == "fp32" else ", in float32"
    return [
        *lines,
        f"Over {figures['tokens']:,} tokens of {figures['text']}, read as one stream{lowered}:",
        "",
        "| | nats per token | bits per token |",
        "| --- | --- | --- |",
        *(
            f"| {label} | {figures[key]:.4f} | {figures[key] / math.log(2):.4f} |"
            for label, key in (("taught", "loss_taught"), ("from zeros", "loss_from_zeros"))
        ),
    ]


def _sample(manifest: dict[str, Any]) -> list[str]:
    if TEXT_SAMPLE_FILE not in manifest["files"]:
        return []
    text = manifest["golden"]["text"]
    return ["", f"`{TEXT_SAMPLE_FILE}` holds a sample of {text}, readable; devices do not need it."]


def _parity(manifest: dict[str, Any]) -> list[str]:
    reference = "PyTorch" if manifest["precision"] == "fp32" else "float32"
    return [
        "",
        f"## Parity with {reference}",
        "",
        "| graph | text | tokens | differing choices | largest logit difference |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {_part(row)} | {row['text']} | {row['tokens']:,} | {row['greedy_differences']} | "
            f"{row['outputs']['logits']['max']:.1e} |"
            for row in manifest["parity"]
        ),
    ]


def _part(row: dict[str, Any]) -> str:
    """What a row of the report is about: a graph, or the weights."""
    return "weights" if row.get("provider") == "native" else str(row["graph"])


def _size(manifest: dict[str, Any], sizes: Mapping[str, int]) -> list[str]:
    state = sum(
        math.prod(row["shape"][1:]) * np.dtype(row["dtype"]).itemsize for row in manifest["state"]
    )
    return [
        "",
        "## Size",
        "",
        "| | |",
        "| --- | --- |",
        *(f"| {file} | {size / 1e3:,.1f} kB |" for file, size in sorted(sizes.items())),
        f"| state of one stream | {state / 1e3:,.1f} kB |",
    ]


def _time(times: Mapping[str, Any]) -> list[str]:
    return [
        "",
        "## Time",
        "",
        f"On the exporting machine ({times['machine']}), one thread:",
        "",
        "| µs per token | a step | a prompt of 256 tokens |",
        "| --- | --- | --- |",
        *(
            f"| {engine} | {figures['step']:.0f} | {figures['prefill']:.0f} |"
            for engine, figures in times["engines"].items()
        ),
    ]

"""The bundle's README: made from figures that were measured, and from nothing else."""

from __future__ import annotations

import math
from typing import Any

from .training_command import training_command

__all__ = ["model_card"]


def model_card(
    name: str,
    manifest: dict[str, Any],
    sizes: dict[str, int] | None = None,
    times: dict[str, Any] | None = None,
) -> str:
    """Write the model card of a bundle.

    Args:
        name: The bundle's name.
        manifest: The content of ``bundle.json``.
        sizes: Bytes of each file.
        times: What was measured on the exporting machine; see :func:`.timing.measure`.

    Returns:
        Markdown.
    """
    training, model = manifest["training"], manifest["model"]
    lines = [
        f"# {name}",
        "",
        "A streaming text generator with constant memory, made by rillet.",
        "",
    ]
    lines += ["```sh", f'rillet generate {name} "Once" --max-new-tokens 200 --seed 1', "```", ""]
    lines += ["## Model", "", "| | |", "| --- | --- |"]
    rows = {
        "trained parameters": f"{training['parameters']:,}" if "parameters" in training else None,
        "vocabulary": f"{model['vocab_size']:,} tokens",
        "architecture": _ARCHITECTURES[model["architecture"]],
        "reservoir": _reservoir(model),
        "memory": _memory(model),
        "precision": manifest["precision"],
        "trained on": training.get("corpus"),
        "of it": f"{training['trained_tokens']:,} tokens" if "trained_tokens" in training else None,
        "steps": training.get("steps"),
        "training seed": training.get("config", {}).get("seed"),
    }
    lines += [f"| {key} | {value} |" for key, value in rows.items() if value is not None]
    command = training_command(training, model)
    if command is not None:
        lines += ["", "Trained with:", "", "```sh", command, "```"]
    fallbacks = training.get("fallbacks")
    if fallbacks:
        lines += ["", "Parts that could not be set up, and what took their place:", ""]
        lines += [f"- {fallback}" for fallback in fallbacks]
    lines += ["", "## Held-out loss", ""]
    held_out = training.get("held_out")
    if held_out:
        lines += [
            f"Over {held_out['tokens']:,} tokens that were never trained on, read as one stream:",
            "",
            "| | nats per token | bits per token |",
            "| --- | --- | --- |",
        ]
        figures = {"with the memory": "loss", "without it": "without_memory"}
        for label, key in (figures if model["memory"] else {"no memory": "loss"}).items():
            value = held_out[key]
            lines.append(f"| {label} | {value:.4f} | {value / math.log(2):.4f} |")
    else:
        lines.append("Not measured.")
    lines += _quantization(manifest.get("quantization"))
    lines += [
        "",
        "## Parity with PyTorch" if manifest["precision"] == "fp32" else "## Beside float32",
        "",
        "| graph | read | tokens | chosen tokens that differ | largest difference of a logit |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row['graph']} | {row['text']} | {row['tokens']:,} | {row['greedy_differences']} | "
        f"{row['outputs']['logits']['max']:.1e} |"
        for row in manifest["parity"]
    ]
    lines += ["", "## Size", "", "| | |", "| --- | --- |"]
    lines += [f"| {file} | {size / 1e3:,.1f} kB |" for file, size in sorted((sizes or {}).items())]
    lines.append(f"| state of one stream | {_state_bytes(manifest['state']) / 1e3:,.1f} kB |")
    if times:
        lines += ["", "## Time", "", f"On the machine that exported it ({times['machine']}):", ""]
        lines += ["| | µs a token |", "| --- | --- |"]
        lines += [
            f"| a step of decode.onnx, one thread | {times['step']:.0f} |",
            f"| prefill.onnx on 256 tokens, one thread | {times['prefill']:.0f} |",
        ]
    return "\n".join(lines) + "\n"


def _quantization(measured: dict[str, Any] | None) -> list[str]:
    """The loss of a bundle whose precision was lowered, beside float32's."""
    if not measured:
        return []
    return [
        "",
        f"Lowered to this precision ({measured['method']}), over {measured['tokens']:,} tokens "
        f"of {measured['text']}: {measured['loss']:.4f} nats per token, "
        f"{measured['loss_fp32']:.4f} in float32.",
    ]


def _state_bytes(table: list[dict[str, Any]]) -> int:
    """Bytes of one stream's state."""
    widths = {"float16": 2, "float32": 4, "int64": 8}
    return sum(math.prod(row["shape"][1:]) * widths[row["dtype"]] for row in table)


_ARCHITECTURES = {"dual_cnn": "two CNNs over a wave buffer", "single_cnn": "one CNN"}


def _reservoir(model: dict[str, Any]) -> str:
    kind, units = model["reservoir"], f"{model['reservoir_size']:,} units"
    if kind == "none":
        return "none"
    seen = f", attention over the last {model['attention_window']:,} states"
    return f"{kind}, {units}{seen if kind == 'attentive' else ''}"


def _memory(model: dict[str, Any]) -> str:
    if not model["memory"]:
        return "none"
    suffix = f"the last {model['suffix_length']:,} tokens"
    key = suffix if model["memory_key"] == "suffix" else "the reservoir's state"
    return f"the last {model['memory']:,} steps, found by {key}"

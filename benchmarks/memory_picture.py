"""The picture of docs/memory.md: what the memory finds, and what it is worth.

    python benchmarks/memory_picture.py RUN CORPUS --out docs/images/memory.png

Reads a piece of the corpus's held-out end with a trained model. Above: the past, shaded by
the weight that the memory gives each place at one step. Below: the loss along the stream with
the memory and without, a running mean.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from rillet.train import load_checkpoint

COLUMNS, ROWS, SPAN = 72, 7, 20_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    checkpoint = load_checkpoint(arguments.run)
    model, tokenizer = checkpoint.model, checkpoint.tokenizer
    text = arguments.corpus.read_text(encoding="utf-8")
    held_out = text[int(len(text) * 0.9) :][:SPAN]
    tokens = torch.tensor([tokenizer.encode(held_out)])
    state, losses, keys = model.zero_state(), [], []
    with torch.no_grad():
        for start in range(0, tokens.shape[1] - 1, 500):
            part, target = tokens[:, start : start + 500], tokens[0, start + 1 : start + 501]
            output = model.compute(part, state)
            state, size = output.state, len(target)
            assert output.keys is not None
            keys.append(output.keys[0])
            both = (output.logits, output.without_memory)
            losses.append([-x.log_softmax(-1)[0, :size].gather(1, target[:, None]) for x in both])
    series = [torch.cat([pair[which] for pair in losses])[:, 0].numpy() for which in range(2)]
    figure = Figure(figsize=(9.5, 5.2), layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=[1.15, 1])
    _finds(above, held_out, torch.cat(keys), model.memory.gate.log_beta.exp().item(), series)
    _worth(below, series)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.out, dpi=110, metadata={"Software": None})


def _finds(axes, text, keys, beta, series) -> None:
    """The last characters, shaded by the weight of the entry that each of them is."""
    gain = series[1] - series[0]
    last = COLUMNS * ROWS
    # The step, with enough of the past behind it, at which the memory helped most.
    step = last + int(gain[last : last + 4_000].argmax())
    close = (keys[step] * keys[step - last + 1 : step]).sum(1) - 1
    weights = torch.exp(beta * close).numpy()
    weights /= weights.max()
    axes.set_xlim(0, COLUMNS)
    axes.set_ylim(-ROWS - 0.2, 1.4)
    axes.set_axis_off()
    title = f"what the memory finds, where the next character is {text[step + 1]!r}"
    axes.text(0, 0.9, title, fontsize=9)
    for place in range(last):
        at = step - last + 1 + place
        row, column = divmod(place, COLUMNS)
        if at == step:
            color = "#9ec5fe"  # here we are
        elif place + 1 < last - 1 and weights[place] > 0.03:
            color = (1.0, 0.75, 0.2, float(weights[place]) ** 0.5)
        else:
            color = None
        if color is not None:
            axes.add_patch(_patch(column, -row - 0.85, color))
        shown = {"\n": "⏎", " ": " "}.get(text[at], text[at])
        axes.text(
            column + 0.5, -row - 0.4, shown, ha="center", va="center", fontsize=7.5,
            family="monospace",
        )  # fmt: skip


def _patch(x: float, y: float, color: object) -> Rectangle:
    return Rectangle((x, y), 1, 0.95, facecolor=color, edgecolor="none")


def _worth(axes, series) -> None:
    width = 1_000
    for values, label in zip(series[::-1], ("memory off", "with the memory"), strict=True):
        mean = np.convolve(values, np.ones(width) / width, "valid")
        axes.plot(np.arange(len(mean)) + width, mean, label=label, linewidth=1.2)
    axes.set_xlabel("characters read")
    axes.set_ylabel("loss, nats per character")
    axes.set_title("what it is worth, on plays the model has never seen", fontsize=10)
    axes.legend(frameon=False)


if __name__ == "__main__":
    main()

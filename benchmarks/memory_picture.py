"""Draw the picture of docs/memory.md: what the memory finds, and what it is worth.

    python benchmarks/memory_picture.py RUN CORPUS --out docs/images/memory.png

Reads part of the corpus's held-out end with a trained model. The upper plot shows the past, shaded
by the weight that the memory gives each entry at one step; the lower plot shows the loss along the
stream with the memory and without, as a running mean.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from rillet.train import DualCNN, load_checkpoint
from rillet.train.model.stream_memory import StreamMemory

COLUMNS, ROWS, SPAN = 72, 7, 20_000

Losses = npt.NDArray[np.float32]


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
    keys, without, with_memory = _read(model, tokens)
    figure = Figure(figsize=(9.5, 5.2), layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=[1.15, 1])
    assert isinstance(model.memory, StreamMemory)
    beta = model.memory.gate.log_beta.exp().item()
    _draw_weights(above, held_out, keys, beta, without - with_memory)
    _draw_losses(below, without, with_memory)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.out, dpi=110, metadata={"Software": None})


@torch.no_grad()
def _read(model: DualCNN, tokens: Tensor) -> tuple[Tensor, Losses, Losses]:
    """Keys ``[T, n]`` and the losses ``[T]`` without the memory and with it."""
    state, keys = model.zero_state(), []
    losses: tuple[list[Tensor], list[Tensor]] = ([], [])
    for start in range(0, tokens.shape[1] - 1, 500):
        chunk, target = tokens[:, start : start + 500], tokens[0, start + 1 : start + 501]
        output = model.compute(chunk, state)
        state = output.state
        assert output.keys is not None
        keys.append(output.keys[0])
        for series, logits in zip(losses, (output.without_memory, output.logits), strict=True):
            series.append(F.cross_entropy(logits[0, : len(target)], target, reduction="none"))
    without, with_memory = (torch.cat(series).numpy() for series in losses)
    return torch.cat(keys), without, with_memory


def _draw_weights(axes: Axes, text: str, keys: Tensor, beta: float, gain: Losses) -> None:
    """Draw the last characters, shaded by the weights of their entries."""
    last = COLUMNS * ROWS
    # The step, with enough of the past behind it, at which the memory helps most.
    step = last + int(gain[last : last + 4_000].argmax())
    close = (keys[step] * keys[step - last + 1 : step]).sum(1) - 1
    weights = torch.exp(beta * close).numpy()
    weights /= weights.max()
    axes.set_xlim(0, COLUMNS)
    axes.set_ylim(-ROWS - 0.2, 1.4)
    axes.set_axis_off()
    title = f"what the memory finds, where the next character is {text[step + 1]!r}"
    axes.text(0, 0.9, title, fontsize=9)
    for index in range(last):
        position = step - last + 1 + index
        row, column = divmod(index, COLUMNS)
        if position == step:
            _shade(axes, column, row, "#9ec5fe")  # the current step
        elif index + 1 < last - 1 and weights[index] > 0.03:
            _shade(axes, column, row, (1.0, 0.75, 0.2, float(weights[index]) ** 0.5))
        axes.text(
            column + 0.5,
            -row - 0.4,
            text[position].replace("\n", "⏎"),
            ha="center",
            va="center",
            fontsize=7.5,
            family="monospace",
        )


def _shade(
    axes: Axes, column: int, row: int, color: str | tuple[float, float, float, float]
) -> None:
    axes.add_patch(Rectangle((column, -row - 0.85), 1, 0.95, facecolor=color, edgecolor="none"))


def _draw_losses(axes: Axes, without: Losses, with_memory: Losses) -> None:
    """Draw the running means of the losses."""
    width = 1_000
    for values, label in ((without, "memory off"), (with_memory, "with the memory")):
        mean = np.convolve(values, np.ones(width) / width, "valid")
        axes.plot(np.arange(len(mean)) + width, mean, label=label, linewidth=1.2)
    axes.set_xlabel("characters read")
    axes.set_ylabel("loss, nats per character")
    axes.set_title("what it is worth, on plays the model has never seen", fontsize=10)
    axes.legend(frameon=False)


if __name__ == "__main__":
    main()

"""Draw the picture of docs/memory.md: what the memory finds, and what it is worth.

    python benchmarks/memory_picture.py RUN CORPUS --out docs/images/memory.png

Reads the corpus's held-out end with a trained model. The upper plot shows a piece of it, each
character shaded by what the memory gains or loses there; the lower plot shows the loss along the
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

COLUMNS, ROWS, SPAN = 72, 9, 50_000

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
    without, with_memory = _read(model, tokens)
    figure = Figure(figsize=(9.5, 5.8), layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=[1.3, 1])
    _draw_gains(above, held_out, without - with_memory)
    _draw_losses(below, without, with_memory)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.out, dpi=110, metadata={"Software": None})


@torch.no_grad()
def _read(model: DualCNN, tokens: Tensor) -> tuple[Losses, Losses]:
    """The losses ``[T]`` without the memory and with it."""
    state = model.zero_state()
    losses: tuple[list[Tensor], list[Tensor]] = ([], [])
    for start in range(0, tokens.shape[1] - 1, 500):
        chunk, target = tokens[:, start : start + 500], tokens[0, start + 1 : start + 501]
        output = model.compute(chunk, state)
        state = output.state
        for series, logits in zip(losses, (output.without_memory, output.logits), strict=True):
            series.append(F.cross_entropy(logits[0, : len(target)], target, reduction="none"))
    without, with_memory = (torch.cat(series).numpy() for series in losses)
    return without, with_memory


def _draw_gains(axes: Axes, text: str, gain: Losses) -> None:
    """Draw the last characters, shaded by what the memory gains in predicting each."""
    axes.set_xlim(0, COLUMNS)
    axes.set_ylim(-ROWS - 0.2, 1.4)
    axes.set_axis_off()
    title = "what the memory gains (green) or loses (red) at each character, up to 3 nats"
    axes.text(0, 0.7, title, fontsize=10)
    first = len(gain) - COLUMNS * ROWS
    for index in range(COLUMNS * ROWS):
        row, column = divmod(index, COLUMNS)
        nats = float(gain[first + index])  # gain[t] is that of the character after t
        strength = min(1.0, abs(nats) / 3)
        if strength > 0.03:
            _shade(
                axes, column, row, (*((0.1, 0.65, 0.3) if nats > 0 else (0.9, 0.2, 0.2)), strength)
            )
        axes.text(
            column + 0.5,
            -row - 0.4,
            text[first + index + 1].replace("\n", "⏎"),
            ha="center",
            va="center",
            fontsize=7.5,
            family="monospace",
        )


def _shade(axes: Axes, column: int, row: int, color: tuple[float, float, float, float]) -> None:
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

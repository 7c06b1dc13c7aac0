"""The Pareto plots of docs/baselines.md."""

from __future__ import annotations

from pathlib import Path

import matplotlib

from .baselines_verdict import title_of
from .converged_results import Comparison, is_cut_short
from .pareto import front

matplotlib.use("Agg")
import matplotlib.pyplot as plt

LABELS = {
    "us": "microseconds per token on ONNX Runtime, one thread",
    "bytes": "kilobytes of the step's graph and of a stream's state",
}
UNITS = {"us": 1.0, "bytes": 1e-3}
COLORS = {"ours": "C0", "gru": "C3", "lstm": "C1", "mingru": "C4", "transformer": "C5"}


def draw_fronts(comparison: Comparison, folder: Path) -> None:
    """Write both plots of a comparison to a folder, if its steps were timed."""
    if comparison.steps is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    for cost, label in LABELS.items():
        path = folder / f"baselines-{comparison.name}-{cost}.png"
        figure, axes = plt.subplots(figsize=(7, 4.5))
        points, unit = comparison.points(cost), UNITS[cost]
        best = [points[name] for name in front(points)]
        axes.step(
            [point.cost * unit for point in best],
            [point.loss for point in best],
            where="post",
            color="0.6",
            linewidth=1,
            label="front",
        )
        for name, point in points.items():
            first, _, memory = name.partition(", ")
            row = comparison.trained.get(first)
            # Hollow: a time limit cut the training short.
            hollow = row is not None and is_cut_short(row)
            axes.plot(
                point.cost * unit,
                point.loss,
                "s" if memory == "memory" or name == "ours" else "o",
                color=COLORS[first],
                fillstyle="none" if hollow else "full",
                label=title_of(name) + (", cut short" if hollow else ""),
            )
        axes.set(xscale="log", xlabel=label, ylabel="held-out loss, nats per character")
        axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
        axes.grid(alpha=0.3)
        figure.savefig(path, dpi=110, bbox_inches="tight", metadata={"Software": None})
        plt.close(figure)

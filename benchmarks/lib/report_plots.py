"""The plots of docs/benchmarks.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

from .report_page import PUBLISHED, Results

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLORS = {"nano": "C0", "micro": "C1", "small": "C2"}
MARKERS = {"fp32": "o", "fp16": "s", "int8": "^", "int4": "v"}
BASELINES = {"gru": ("GRU", "C3", ""), "mingru": ("minGRU", "C4", "")}
BASELINES["gpt"] = ("transformer, 256 tokens", "C5", ", 256 tokens")


def draw_plots(results: Results, folder: Path) -> None:
    """Write the three plots to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    _draw_loss(
        results, folder / "bench-loss-time.png", "us", 1, "microseconds per token, one thread"
    )
    _draw_loss(
        results, folder / "bench-loss-size.png", "bytes", 1e-6, "megabytes of the step's graph"
    )
    _draw_positions(results["positions"]["figures"], folder / "bench-position.png")


def _draw_loss(results: Results, path: Path, key: str, unit: float, label: str) -> None:
    figure, axes = plt.subplots(figsize=(7, 4.5))
    rows, trained = results["costs"]["figures"]["rows"], results["equal_time"]["figures"]
    for row in rows.values():
        if row["kind"] == "ours":
            axes.plot(
                row[key] * unit,
                row["loss"],
                MARKERS[row["precision"]],
                color=COLORS[row["preset"]],
                label=f"{row['preset']}, {row['precision']}",
            )
    hollow: dict[str, Any] = {"fillstyle": "none", "linestyle": "none", "marker": "o"}
    axes.plot(
        rows["nano, fp32"][key] * unit,
        trained["ours"]["held_out"]["with memory"],
        color="C0",
        label="nano, briefly trained",
        **hollow,
    )
    for name, (title, color, suffix) in BASELINES.items():
        axes.plot(
            rows[name + suffix][key] * unit,
            trained[name]["held_out"]["loss"],
            color=color,
            label=f"{title}, briefly trained",
            **hollow,
        )
    if key == "bytes":
        counts = trained["ngram"]
        axes.plot(
            counts["bytes"] * unit,
            counts["held_out"]["loss"],
            "P",
            color="C7",
            label="n-gram counts",
        )
    axes.plot(
        rows["nanogpt, 256 tokens"][key] * unit,
        PUBLISHED,
        "x",
        color="black",
        label="nanoGPT, published",
    )
    axes.set(xscale="log", xlabel=label, ylabel="held-out loss, nats per character")
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    _finish(figure, axes, path)


def _draw_positions(rows: list[dict[str, Any]], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 4.5))
    titles = {
        "nano": "nano",
        "gru": "GRU",
        "gpt": "transformer of nano's size",
        "nanogpt": "transformer of nanoGPT's size",
    }
    positions = [row["position"] for row in rows]
    for name, title in titles.items():
        axes.plot(positions, [row["us"][name] for row in rows], "o-", label=title)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="position in the stream, tokens",
        ylabel="microseconds per token, one thread",
    )
    axes.legend(fontsize=8)
    _finish(figure, axes, path)


def _finish(figure: Any, axes: Any, path: Path) -> None:
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)

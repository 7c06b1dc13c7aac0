"""Plot a training run: loss curves, attention, and the reservoir's spectrum."""

from __future__ import annotations

import importlib
import importlib.util
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...runtime.errors import RilletError
from ...runtime.files import write_atomic
from ..model.attention import AttentiveReservoir
from ..model.dual_cnn import DualCNN

__all__ = ["can_plot", "load_plotting", "plot_run"]


def can_plot() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def load_plotting() -> Any:
    """Import matplotlib's figures, which takes seconds the first time.

    Raises:
        RilletError: matplotlib is not installed.
    """
    try:
        return importlib.import_module("matplotlib.figure")
    except ImportError as error:
        raise RilletError(
            "plotting needs matplotlib; install it with: pip install matplotlib"
        ) from error


def plot_run(
    path: Path, model: DualCNN, rows: Sequence[dict[str, Any]], tokens: torch.Tensor
) -> None:
    """Plot the summary of a run to a PNG file.

    Args:
        path: The file to write.
        model: The trained model.
        rows: Rows of the run's CSV log.
        tokens: A text to show the attention on, ``[T]``.

    Raises:
        RilletError: matplotlib is not installed.
    """
    figures = load_plotting()
    # Without pyplot there is no window system and no global state.
    figure = figures.Figure(figsize=(13, 4), layout="constrained")
    losses, attention, spectrum = figure.subplots(1, 3)
    _losses(losses, rows)
    _attention(attention, model, tokens)
    _spectrum(spectrum, model)
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=110, metadata={"Software": None})
    write_atomic(path, data.getvalue())


def _losses(axes: Any, rows: Sequence[dict[str, Any]]) -> None:
    axes.set_title("loss, nats per token")
    axes.set_xlabel("step")
    for name, label, style in (
        ("first_loss", "first CNN", "-"),
        ("second_loss", "second CNN, memory included", "-"),
        ("validation", "validation", "o-"),
        ("validation_without_memory", "validation, no memory", "o--"),
    ):
        points = [(int(r["step"]), float(r[name])) for r in rows if r.get(name) not in (None, "")]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=label, linewidth=1, markersize=3)
    if rows:
        # Cut off the first steps, whose losses are far off the scale.
        values = sorted(float(r["second_loss"]) for r in rows)
        axes.set_ylim(values[0] - 0.15, values[int(0.95 * (len(values) - 1))] + 0.6)
        axes.legend(fontsize=7)


@torch.no_grad()
def _attention(axes: Any, model: DualCNN, tokens: torch.Tensor) -> None:
    axes.set_title("attention: weight by distance")
    if not isinstance(model.reservoir, AttentiveReservoir) or len(tokens) < 2:
        _say(axes, "no attention")
        return
    device = model.embedder.codes.device
    output = model.compute(tokens.view(1, -1).to(device), model.zero_state(), need_weights=True)
    assert output.attended is not None
    assert output.attended.weights is not None
    # Rows are heads, columns are steps back; averaged over the text.
    weights = output.attended.weights[0].mean(1).flip(1).cpu().numpy()
    picture = axes.imshow(weights, aspect="auto", interpolation="nearest")
    axes.set_xlabel("steps back")
    axes.set_ylabel("head")
    axes.set_yticks(range(len(weights)))
    axes.figure.colorbar(picture, ax=axes, shrink=0.8)


def _spectrum(axes: Any, model: DualCNN) -> None:
    axes.set_title("reservoir: eigenvalues of W")
    if model.reservoir is None:
        _say(axes, "no reservoir")
        return
    values = np.linalg.eigvals(model.reservoir.recurrent.cpu().double().numpy())
    angle = np.linspace(0, 2 * np.pi, 200)
    axes.plot(np.cos(angle), np.sin(angle), color="0.7", linewidth=1)
    axes.scatter(values.real, values.imag, s=6)
    axes.set_aspect("equal")
    axes.set_xlabel("real")
    axes.set_ylabel("imaginary")


def _say(axes: Any, text: str) -> None:
    axes.text(0.5, 0.5, text, ha="center", va="center")
    axes.set_axis_off()

"""A picture of the activations that :func:`look_inside` records."""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime.errors import RilletError
from ...runtime.files import as_path, check_writable, write_atomic
from .activations import Array, Inside, look_inside

__all__ = ["draw_inside", "principal_axes"]

_READABLE = 120
"""Most tokens whose text fits below a picture."""


def draw_inside(bundle: str | Path, path: str | Path, text: str | None = None) -> Inside:
    """Draw waves, attention and reservoir of a bundle while it reads a text.

    Args:
        bundle: The bundle's folder.
        path: The PNG file to write.
        text: The text; by default the golden record's prompt.

    Returns:
        The activations that were drawn.

    Raises:
        BundleError: The bundle is missing or damaged.
        RilletError: matplotlib is not installed.
        UsageError: The text has fewer than two tokens.
    """
    file = as_path(path)
    try:
        figures = importlib.import_module("matplotlib.figure")
    except ImportError as error:
        raise RilletError(
            "plotting needs matplotlib; install it with: pip install matplotlib"
        ) from error
    check_writable(file)
    inside = look_inside(bundle, text)
    figure = figures.Figure(figsize=(13, 10), layout="constrained")
    rows = figure.subplots(3, 2, width_ratios=[3, 1], height_ratios=[3, 3, 1.6])
    _waves(rows[0, 0], inside)
    _attention(rows[1, 0], inside)
    _nats(rows[2, 0], inside)
    _trajectory(rows[0, 1], inside)
    _heads(rows[1, 1], inside)
    _units(rows[2, 1], inside)
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=110, metadata={"Software": None})
    write_atomic(file, data.getvalue())
    return inside


def principal_axes(states: Array) -> Array:
    """Project states ``[T, N]`` to their two leading principal axes, ``[T, 2]``."""
    centred = states - states.mean(0)
    left, scale, _ = np.linalg.svd(centred, full_matrices=False)
    projected = np.zeros((len(states), 2), np.float32)
    count = min(2, len(scale))
    projected[:, :count] = left[:, :count] * scale[:count]
    return projected


def _or_absent(draw: Callable[[Any, Array], None], axes: Any, values: Array | None) -> None:
    if values is None:
        axes.text(0.5, 0.5, "not in this model", ha="center", va="center")
        axes.set_axis_off()
    else:
        draw(axes, values)


def _waves(axes: Any, inside: Inside) -> None:
    axes.set_title("waves of the first CNN")

    def draw(axes: Any, waves: Array) -> None:
        _image(axes, waves.T, "RdBu", centred=True)
        axes.set_ylabel("feature")
        _letters(axes, inside)

    _or_absent(draw, axes, inside.waves)


def _attention(axes: Any, inside: Inside) -> None:
    axes.set_title("attention by distance, mean over heads")

    def draw(axes: Any, weights: Array) -> None:
        _image(axes, weights.mean(1).T, "viridis")
        axes.set_ylabel("steps back")
        _letters(axes, inside)

    _or_absent(draw, axes, inside.attention)


def _nats(axes: Any, inside: Inside) -> None:
    axes.set_title("surprise of each token, nats")
    places = np.arange(1, len(inside.nats))
    axes.bar(places, inside.nats[1:], width=0.8)
    axes.set_xlim(-0.5, len(inside.nats) - 0.5)
    _letters(axes, inside)


def _trajectory(axes: Any, inside: Inside) -> None:
    axes.set_title("reservoir trajectory")

    def draw(axes: Any, states: Array) -> None:
        path = principal_axes(states)
        axes.plot(path[:, 0], path[:, 1], color="0.8", linewidth=0.7)
        axes.scatter(path[:, 0], path[:, 1], c=np.arange(len(path)), s=8)
        axes.set_aspect("equal")

    _or_absent(draw, axes, inside.reservoir)


def _heads(axes: Any, inside: Inside) -> None:
    axes.set_title("attention by head")

    def draw(axes: Any, weights: Array) -> None:
        for head, line in enumerate(weights.mean(0)):
            axes.plot(line, label=f"head {head}", linewidth=1)
        axes.set_xlabel("steps back")
        axes.legend(fontsize=7)

    _or_absent(draw, axes, inside.attention)


def _units(axes: Any, inside: Inside) -> None:
    axes.set_title("reservoir units")

    def draw(axes: Any, states: Array) -> None:
        _image(axes, states.T, "RdBu", centred=True)
        axes.set_xlabel("token")

    _or_absent(draw, axes, inside.reservoir)


def _image(axes: Any, values: Array, colours: str, centred: bool = False) -> None:
    limit = float(np.percentile(np.abs(values), 99)) or 1.0
    axes.imshow(
        values,
        aspect="auto",
        interpolation="nearest",
        cmap=colours,
        vmin=-limit if centred else 0,
        vmax=limit,
    )


def _letters(axes: Any, inside: Inside) -> None:
    """Write the text below the picture, if it fits."""
    if len(inside.pieces) > _READABLE:
        axes.set_xlabel("token")
        return
    # A dollar sign would start a formula.
    shown = [piece.replace("\n", "⏎").replace("$", r"\$") for piece in inside.pieces]
    axes.set_xticks(range(len(shown)), shown, fontsize=7, family="monospace")

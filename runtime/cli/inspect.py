"""``rillet inspect``: everything that a bundle says about itself."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import click
import numpy as np

from ..bundle import BUNDLE_FILE, Bundle
from ..errors import UsageError
from .entry import optional_part

__all__ = ["inspect", "inspection"]


def inspection(bundle: Bundle) -> dict[str, Any]:
    """What a bundle holds, as JSON values.

    Args:
        bundle: An opened bundle; its hashes have been checked.

    Returns:
        The manifest without its golden record, and what follows from it: the size of each
        file, and the bytes of each state tensor and of one stream.
    """
    manifest = bundle.manifest
    sizes = {name: bundle.file(name).stat().st_size for name in bundle.hashes()}
    state = [
        {
            "name": row.name,
            "shape": list(row.shape),
            "dtype": row.dtype,
            "bytes": math.prod(row.shape) * np.dtype(row.dtype).itemsize,
        }
        for row in bundle.state
    ]
    shown = {key: value for key, value in manifest.items() if key not in ("golden", "state")}
    return {
        **shown,
        "sizes": {**sizes, BUNDLE_FILE: (bundle.path / BUNDLE_FILE).stat().st_size},
        "state": state,
        "bytes_per_stream": sum(row["bytes"] for row in state),
        "golden": "golden" in manifest,
    }


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    metavar="PNG",
    help="Draw the waves, the attention and the reservoir while it reads a text.",
)
@click.option("--text", help="With --plot: the text; default: the golden record's prompt.")
def inspect(bundle: Path, as_json: bool, plot: Path | None, text: str | None) -> None:
    """Show what BUNDLE is: model, graphs, state of a stream, training and parity."""
    if text is not None and plot is None:
        raise UsageError("--text is what --plot draws; give the picture's file with --plot PNG")
    if plot is not None:
        # The exporter's part has onnx, which opens the graph, and matplotlib.
        picture = optional_part("rillet.export.inspect.picture", "rillet inspect --plot", "export")
        inside = picture.draw_inside(bundle, plot, text)
        click.echo(f"{plot} shows {len(inside.pieces)} tokens.", err=as_json)
        if not as_json:
            return
    opened = Bundle.open(bundle)
    found = inspection(opened)
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    for title, lines in _sections(found).items():
        if lines:
            click.echo(f"{title}\n" + "\n".join(f"  {line}" for line in lines))


def _sections(found: dict[str, Any]) -> dict[str, list[str]]:
    """Lines of text under each title; what the bundle does not say is left out."""
    return {
        "Bundle": [
            f"format {found['format_version']}, precision {found['precision']}, hashes match",
            *_pairs(found.get("exporter"), "made with {key} {value}"),
        ],
        "Model": _pairs(_plain(found.get("model")), "{key:20} {value}"),
        "Files": [
            f"{name:24} {size / 1e3:10,.1f} kB" for name, size in sorted(found["sizes"].items())
        ],
        "State of one stream": [
            f"{row['name']:20} {row['dtype']:8} {_shape(row['shape']):18} {row['bytes']:10,} bytes"
            for row in found["state"]
        ]
        + [f"{'together':48} {found['bytes_per_stream']:10,} bytes"],
        "Training": _pairs(_plain(found.get("training")), "{key:20} {value}"),
        "Held-out loss": _pairs(_plain(_held_out(found)), "{key:20} {value}"),
        "Quantization": _pairs(_plain(found.get("quantization")), "{key:20} {value}"),
        "Parity with PyTorch": _parity(found.get("parity")),
        "Hashes": _pairs(
            {key: found.get(key) for key in ("weights_sha256", "tokenizer_sha256", "checksum")},
            "{key:20} {value}",
        ),
    }


def _pairs(values: Any, form: str) -> list[str]:
    if not isinstance(values, dict):
        return []
    return [form.format(key=str(key), value=value) for key, value in values.items()]


def _plain(values: Any) -> Any:
    """Entries that are one number or word; the others have sections of their own, or none."""
    if not isinstance(values, dict):
        return {}
    return {key: v for key, v in values.items() if isinstance(v, str | int | float)}


def _held_out(found: dict[str, Any]) -> Any:
    training = found.get("training")
    return training.get("held_out") if isinstance(training, dict) else None


def _shape(shape: list[int]) -> str:
    return "[" + ", ".join(["B", *map(str, shape)]) + "]"


def _parity(rows: Any) -> list[str]:
    """A line for each graph and text; nothing where the report cannot be read."""
    lines = []
    for row in rows if isinstance(rows, list) else []:
        try:
            logits = row["outputs"]["logits"]
            line = (
                f"{row['graph']:9} {row['text']:14} {row['tokens']:7,} tokens, "
                f"{row['greedy_differences']} chosen otherwise, logits within {logits['max']:.1e}"
            )
        except (TypeError, KeyError, ValueError):
            continue
        lines.append(line)
    return lines

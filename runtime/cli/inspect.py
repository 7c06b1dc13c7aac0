"""``rillet inspect``: show everything that a bundle records about itself."""

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
from .terminal import tell

__all__ = ["inspect_command", "inspection"]


def inspection(bundle: Bundle) -> dict[str, Any]:
    """The contents of a bundle as JSON values.

    Args:
        bundle: An open bundle, whose hashes have been verified.

    Returns:
        The manifest without its golden record, and what follows from it: the size of each file, and
        the bytes of each state tensor and of one stream.
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
    content = {key: value for key, value in manifest.items() if key not in ("golden", "state")}
    return {
        **content,
        "sizes": {**sizes, BUNDLE_FILE: (bundle.path / BUNDLE_FILE).stat().st_size},
        "state": state,
        "bytes_per_stream": sum(row["bytes"] for row in state),
        "golden": "golden" in manifest,
    }


@click.command("inspect")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Write everything as JSON.")
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    metavar="PNG",
    help="Plot the waves, the attention and the reservoir while the model reads a text.",
)
@click.option("--text", help="Text to plot. Default: the prompt of the golden record.")
def inspect_command(bundle: Path, as_json: bool, plot: Path | None, text: str | None) -> None:
    """Show what BUNDLE contains: model, graphs, stream state, training and parity."""
    if text is not None and plot is None:
        raise UsageError("--text is used only by --plot; add --plot PNG, or leave out --text")
    if plot is not None:
        # Only the export package depends on onnx, which opens the graph, and on matplotlib.
        picture = optional_part("rillet.export.inspect.picture", "rillet inspect --plot", "export")
        inside = picture.draw_inside(bundle, plot, text)
        tell(f"{plot} shows {len(inside.pieces)} tokens.", err=as_json)
        if not as_json:
            return
    opened = Bundle.open(bundle)
    content = inspection(opened)
    if as_json:
        tell(json.dumps(content, indent=2, ensure_ascii=False))
        return
    for title, lines in _sections(content).items():
        if lines:
            tell(f"{title}\n" + "\n".join(f"  {line}" for line in lines))


def _sections(content: dict[str, Any]) -> dict[str, list[str]]:
    """Lines of text under each title; what the bundle does not record is left out."""
    return {
        "Bundle": [
            f"format {content['format_version']}, precision {content['precision']}, hashes match",
            *_pairs(content.get("exporter"), "exported with {key} {value}"),
        ],
        "Model": _pairs(_plain(content.get("model")), "{key:20} {value}"),
        "Files": [
            f"{name:24} {size / 1e3:10,.1f} kB" for name, size in sorted(content["sizes"].items())
        ],
        "State of one stream": [
            f"{row['name']:20} {row['dtype']:8} {_shape(row['shape']):18} {row['bytes']:10,} bytes"
            for row in content["state"]
        ]
        + [f"{'together':48} {content['bytes_per_stream']:10,} bytes"],
        "Taught": _taught(content.get("taught")),
        "Training": _pairs(_plain(content.get("training")), "{key:20} {value}"),
        "Held-out loss": _pairs(_plain(_held_out(content)), "{key:20} {value}"),
        "Quantization": _pairs(_plain(content.get("quantization")), "{key:20} {value}"),
        "Parity with PyTorch": _parity(content.get("parity")),
        "Hashes": _pairs(
            {key: content.get(key) for key in ("weights_sha256", "tokenizer_sha256", "checksum")},
            "{key:20} {value}",
        ),
    }


def _pairs(values: Any, template: str) -> list[str]:
    if not isinstance(values, dict):
        return []
    return [template.format(key=str(key), value=value) for key, value in values.items()]


def _plain(values: Any) -> Any:
    """Entries that are a single number or word; nested ones have their own sections, or none."""
    if not isinstance(values, dict):
        return {}
    return {key: v for key, v in values.items() if isinstance(v, str | int | float)}


def _taught(taught: Any) -> list[str]:
    """What streams begin with, and what it is worth."""
    lines = _pairs(_plain(taught), "{key:20} {value}")
    measured = taught.get("measured") if isinstance(taught, dict) else None
    if isinstance(measured, dict):
        lines += _pairs(
            _plain({f"measured {k}": v for k, v in measured.items()}), "{key:20} {value}"
        )
    return lines


def _held_out(content: dict[str, Any]) -> Any:
    training = content.get("training")
    return training.get("held_out") if isinstance(training, dict) else None


def _shape(shape: list[int]) -> str:
    return "[" + ", ".join(["B", *map(str, shape)]) + "]"


def _parity(rows: Any) -> list[str]:
    """A line for each graph and text; rows that cannot be read are left out."""
    lines = []
    for row in rows if isinstance(rows, list) else []:
        try:
            logits = row["outputs"]["logits"]
            line = (
                f"{row['graph']:9} {row['text']:14} {row['tokens']:7,} tokens, "
                f"{row['greedy_differences']} greedy choices differ, "
                f"logits within {logits['max']:.1e}"
            )
        except (TypeError, KeyError, ValueError):
            continue
        lines.append(line)
    return lines

"""The model in a bundle: its weights as a checkpoint has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..runtime.bundle import WEIGHTS_FILE, WEIGHTS_FORMAT, Bundle
from ..runtime.errors import BundleError
from ..runtime.tokenizer import Tokenizer

__all__ = ["read_bundle"]

_SCALE = "_scale"
_SETTINGS = ("format", "reservoir.sine", "memory.capacity", "memory.adaptation")
"""What a checkpoint keeps in its configuration."""

_ORIGIN = ("precision", "arguments", "trained_memory")
"""What a card says of the bundle."""


def read_bundle(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a bundle as a checkpoint: the header, and the tensors by name.

    Weights in int8 become the numbers that they stand for: another model than the run's own, by as
    much as int8 costs. What the bundle was taught stays behind.

    Args:
        folder: The bundle.

    Raises:
        BundleError: The bundle is damaged, or in a precision that only its graphs hold.
    """
    bundle = Bundle.open(folder)
    if WEIGHTS_FILE not in bundle.hashes():
        raise BundleError(
            f"{folder} has no {WEIGHTS_FILE}, so its model cannot be read; give the run that it "
            "was exported from"
        )
    path = bundle.checked_file(WEIGHTS_FILE)
    header, stored = WEIGHTS_FORMAT.read(path, "pt")
    sample, training = bundle.text_sample(), bundle.manifest.get("training")
    origin = {name: bundle.manifest[name] for name in _ORIGIN if name in bundle.manifest}
    return {
        "model": header.get("model"),
        "tokenizer": Tokenizer.load(bundle.file("tokenizer.json")).source,
        "training": {
            **(training if isinstance(training, dict) else {}),
            "bundle": {
                "name": bundle.path.name,
                "sampling": bundle.generation_defaults(),
                **origin,
            },
        },
        "text_sample": None if sample is None else sample.to_dict(),
    }, _plain(path, stored)


def _plain(path: Path, stored: dict[str, Any]) -> dict[str, Any]:
    """The tensors that a checkpoint has, each row of int8 multiplied by its scale."""
    scales = {name for name in stored if name.endswith(_SCALE)}
    tensors = {name: stored[name] for name in stored.keys() - scales - {*_SETTINGS}}
    for name in scales:
        rows, scale = tensors.get(name.removesuffix(_SCALE)), stored[name]
        if rows is None or rows.ndim != 2 or scale.shape != rows.shape[:1]:
            raise BundleError(f"{path} is damaged: {name} does not fit; export the model again")
        tensors[name.removesuffix(_SCALE)] = rows * scale[:, None]
    return tensors

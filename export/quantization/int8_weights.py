"""The native engine's weights in int8, with a scale for each output."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import safetensors.numpy

from ...runtime.bundle import WEIGHTS_FORMAT

__all__ = ["int8_weights"]

_VERSION = (1, 1)
_MOST = 127
_KEPT = ("embedder.", "memory.")
"""Tables, of which a step reads one row, and the memory's gate, which shares the head's product."""


def int8_weights(path: Path) -> bytes:
    """Lower a file of weights: the content of the new one.

    The weights of products become int8 from -127 to 127. ``NAME_scale`` holds what each row is
    multiplied by. Everything else stays float32.

    Args:
        path: The file ``weights.safetensors`` of a bundle in float32.

    Raises:
        BundleError: The file is missing or damaged.
    """
    header, tensors = WEIGHTS_FORMAT.read(path, "numpy")
    lowered = {**tensors, "format": np.asarray(_VERSION)}
    for name, tensor in tensors.items():
        if name.endswith(".weight") and tensor.ndim == 2 and not name.startswith(_KEPT):
            lowered[name], lowered[f"{name}_scale"] = _lowered(tensor)
    content = {name: np.ascontiguousarray(tensor) for name, tensor in lowered.items()}
    own = ("format", "format_version")
    rest = {key: value for key, value in header.items() if key not in own}
    return bytes(safetensors.numpy.save(content, WEIGHTS_FORMAT.metadata(rest)))


def _lowered(
    weight: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    largest = np.abs(weight).max(axis=1)
    # Also for a row of zeros, which may have any scale above 0.
    scales = np.maximum(largest / np.float32(_MOST), np.finfo(np.float32).tiny)
    numbers = np.clip(np.rint(weight / scales[:, None]), -_MOST, _MOST)
    return numbers.astype(np.int8), scales

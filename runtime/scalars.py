"""numpy's numbers and arrays, taken as Python's."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["plain"]


def plain(value: Any) -> Any:
    """A number or array of numpy's as Python's own, such as ``int``; anything else as it is."""
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else value

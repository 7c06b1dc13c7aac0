"""numpy's numbers, taken as Python's."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["plain"]


def plain(value: Any) -> Any:
    """A number of numpy's as Python's own, such as ``int``; anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value

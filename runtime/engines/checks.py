"""Whether a step gave numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import EngineError

__all__ = ["check_finite"]


def check_finite(logits: npt.NDArray[Any]) -> None:
    """Refuse logits ``[..., V]`` that are not finite, before the stream goes on from them.

    One number of each row is looked at: logits are normalised over all tokens, so that one that
    is not finite leaves none that is. A step pays for it less than a thousandth of its time.

    Raises:
        EngineError: There are such; the stream is where it was.
    """
    if logits.size == logits.shape[-1]:
        sound = math.isfinite(logits.item(0))
    else:
        sound = bool(np.isfinite(logits[..., 0]).all())
    if not sound:
        rows = np.unique(np.nonzero(~np.isfinite(logits[..., 0]))[0]) if logits.ndim > 1 else [0]
        where = f" in row {', '.join(map(str, rows))} of the batch" if len(logits) > 1 else ""
        raise EngineError(
            f"a step gave numbers that are not finite{where}; the stream is where it was before "
            "it: go on from an earlier moment (rollback, restore) or reset it"
        )

"""Names for the array types that benchmarks pass around."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Array", "FloatArray", "TokenArray"]

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float32]
TokenArray = npt.NDArray[np.int64]

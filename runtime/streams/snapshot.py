"""A moment of a stream, as it is remembered and gone back to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..engines.base import EngineState

__all__ = ["Mark"]


@dataclass(frozen=True)
class Mark:
    """A moment of a stream, to go back to with :meth:`Session.rollback`."""

    state: EngineState
    logits: npt.NDArray[Any] | None
    position: int
    pending: bytes
    seen: npt.NDArray[np.bool_]
    recent: tuple[int, ...]
    generation: dict[str, Any] | None = None

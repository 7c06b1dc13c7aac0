"""A moment of a stream, to go back to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..engines.base import EngineState
from ..loaded import LoadedModel
from ..uncopied import Uncopied

__all__ = ["Snapshot"]


@dataclass(frozen=True)
class Snapshot(Uncopied):
    """A moment of a stream: :meth:`Session.checkpoint` takes it, :meth:`Session.rollback` returns.

    Attributes:
        model: The model.
        state: The engine's state, one row.
        logits: Log-probabilities of the next token, ``[V]``; ``None`` before the first.
        position: Tokens read and written.
        pending: Bytes of an incomplete character.
        seen: Which tokens were read or written, ``[V]``.
        recent: The last tokens.
        repeatable: Whether the last token can be read again: see :meth:`.Stream.with_memory`.
        generation: The generation that was under way, as JSON values.
    """

    instead = "share it, for it never changes, or save a session that was rolled back to it"

    model: LoadedModel
    state: EngineState
    logits: npt.NDArray[Any] | None
    position: int
    pending: bytes
    seen: npt.NDArray[np.bool_]
    recent: tuple[int, ...]
    repeatable: bool = False
    generation: dict[str, Any] | None = None

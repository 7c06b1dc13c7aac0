"""What every engine refuses: unknown tokens, logits that are not finite, a foreign state."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ..errors import EngineError
from .base import EngineState

__all__ = ["check_finite", "check_tokens", "foreign_state", "own_state"]

S = TypeVar("S")


def own_state(state: EngineState, kind: type[S]) -> S:
    """Narrow a state to the kind that an engine makes.

    Raises:
        EngineError: It is of another kind.
    """
    if isinstance(state, kind):
        return state
    raise foreign_state()


def foreign_state() -> EngineError:
    """Return the error for a state that another engine made."""
    return EngineError(
        "the state belongs to another engine; make one with zero_state() of this engine, then "
        "write() the values that read() returns there"
    )


def check_tokens(tokens: npt.NDArray[Any], vocab_size: int) -> None:
    """Refuse a token that does not exist.

    A GPU would read past the end of a table without an error, and ONNX Runtime fails only
    after it has stored the token in the memory.

    Raises:
        EngineError: There is one; the stream is where it was.
    """
    if tokens.size == 1:
        valid = 0 <= tokens.item() < vocab_size
    else:
        valid = bool(tokens.min() >= 0 and tokens.max() < vocab_size)
    if not valid:
        raise EngineError(
            f"tokens must lie between 0 and {vocab_size - 1}; the stream is where it was"
        )


def check_finite(logits: npt.NDArray[Any]) -> None:
    """Refuse logits ``[..., V]`` that are not finite, before the stream continues from them.

    One number per row is enough: logits are normalised over all tokens, so a single one that is
    not finite spoils the whole row. The check costs less than a thousandth of a step.

    Raises:
        EngineError: A row is not finite; the stream is where it was.
    """
    if logits.size == logits.shape[-1]:
        finite = math.isfinite(logits.item(0))
    else:
        finite = bool(np.isfinite(logits[..., 0]).all())
    if not finite:
        rows = np.unique(np.nonzero(~np.isfinite(logits[..., 0]))[0]) if logits.ndim > 1 else [0]
        where = f" in row {', '.join(map(str, rows))} of the batch" if len(logits) > 1 else ""
        raise EngineError(
            f"a step computed values that are not finite{where}; the stream is where it was before "
            "it: roll back to a checkpoint, restore a saved stream, or reset it"
        )

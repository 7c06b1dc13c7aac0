"""What a bundle taught its memory: a file with the table that streams begin with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
from safetensors.numpy import save as to_safetensors

from .context_slots import check_slots, with_stored_slots
from .errors import BundleError
from .state_table import StateTensor
from .tensor_file import TensorFormat

__all__ = ["START_STATE_FILE", "START_STATE_FORMAT", "read_start_state", "start_state_bytes"]

START_STATE_FILE = "start_state.safetensors"
"""The file in a bundle; it holds one tensor, ``memory_slots [1, slots]``."""

START_STATE_FORMAT = TensorFormat(
    "rillet-start", "1.0", "start state", "copy the bundle again, or export it again"
)

_TABLE = "memory_slots"

Values = dict[str, npt.NDArray[Any]]


def start_state_bytes(table: npt.NDArray[Any]) -> bytes:
    """The content of the file.

    Args:
        table: The memory's table, ``[slots]``.
    """
    return to_safetensors({_TABLE: table[None]}, START_STATE_FORMAT.metadata({}))


def read_start_state(path: Path, state: Sequence[StateTensor], vocab_size: int) -> Values:
    """The state of a stream that begins with what a file holds: zeros but for the memory.

    Args:
        path: The file.
        state: The bundle's state table.
        vocab_size: Number of tokens.

    Returns:
        Every state tensor, for one row.

    Raises:
        BundleError: The file is damaged, or is not of this bundle.
    """
    _, tensors = START_STATE_FORMAT.read(path, "numpy")
    values = {row.name: row.zeros(1) for row in state}
    expected, table = values.get(_TABLE), tensors.get(_TABLE)
    try:
        if expected is None:
            raise ValueError("the model has no memory of contexts")
        if table is None or len(tensors) > 1:
            raise ValueError(f"it holds {', '.join(sorted(tensors)) or 'nothing'}, not {_TABLE}")
        if table.shape != expected.shape or table.dtype != expected.dtype:
            raise ValueError(
                f"{_TABLE} is {table.dtype} of shape {list(table.shape)}, not {expected.dtype} of "
                f"shape {list(expected.shape)}"
            )
        values[_TABLE] = table
        check_slots(values, vocab_size)
        return with_stored_slots(values, values)
    except (ValueError, IndexError) as error:
        raise BundleError(
            f"{path} is not what this bundle's streams begin with ({error}); copy the bundle "
            "again, or export it again"
        ) from error

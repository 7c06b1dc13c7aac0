"""The contract of a graph: names, shapes, and the table of its state tensors.

The exporter writes the contract into every graph and bundle; the runtime reads it back and binds
tensors by name.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import BundleError, EngineError

__all__ = [
    "FORMAT",
    "FORMAT_VERSION",
    "STEP_CONTRACT",
    "StateTensor",
    "check_state",
    "is_shared",
    "parse_state_table",
    "state_table_json",
]

FORMAT = "rillet-bundle"
FORMAT_VERSION = "1.1"

STEP_CONTRACT = (
    "Inputs: input_ids int64 [batch, T]; learn float32 [batch], 1 to store what is read "
    "in the stream's memory and 0 not to (with the state tensor adapted, 0.5 stores without moving "
    "it); past.NAME for each row of the state table. "
    "Outputs: logits float32 [batch, T, vocabulary], natural-log probabilities of the token "
    "after each input; present.NAME for each row. Start a stream with every past.NAME all "
    "zeros; feed each present.NAME back as past.NAME. T is 1 in the decode graph and any "
    "number from 1 in the prefill graph; any way of cutting a text into calls gives the same "
    "result. past.NAME and present.NAME may share one buffer. If the bundle has "
    "start_state.safetensors, its tensors replace zeros at the start of a stream."
)

_DTYPES = ("float16", "float32", "int32", "int64")


@dataclass(frozen=True)
class StateTensor:
    """One row of the state table.

    Attributes:
        name: Name, without ``past.`` or ``present.``.
        shape: Sizes of the axes after the batch axis.
        dtype: numpy's name for the element type.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def past(self) -> str:
        """Name of the graph's input."""
        return f"past.{self.name}"

    @property
    def present(self) -> str:
        """Name of the graph's output."""
        return f"present.{self.name}"

    def zeros(self, batch: int) -> np.ndarray[Any, Any]:
        """The tensor at the start of a stream: zeros ``[batch, *shape]``."""
        return np.zeros((batch, *self.shape), self.dtype)


def state_table_json(table: list[StateTensor]) -> list[dict[str, Any]]:
    """The table as JSON values; the batch axis is written as ``"batch"``."""
    return [{"name": row.name, "shape": ["batch", *row.shape], "dtype": row.dtype} for row in table]


def parse_state_table(value: Any) -> list[StateTensor]:
    """Parse a state table from JSON text or values.

    Raises:
        BundleError: The table does not have the form that :func:`state_table_json` writes.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise BundleError(f"the state table is not JSON ({error})") from error
    table = []
    try:
        for row in value:
            name, (batch, *shape), dtype = row["name"], row["shape"], row["dtype"]
            has_valid_sizes = all(type(size) is int and size > 0 for size in shape)
            if not isinstance(name, str) or batch != "batch" or not has_valid_sizes:
                raise BundleError(f"the state table has an invalid row: {row!r}")
            if dtype not in _DTYPES:
                raise BundleError(
                    f"state tensor {name!r} has the unknown type {dtype!r}; it must be one of "
                    f"{', '.join(_DTYPES)}"
                )
            table.append(StateTensor(name, tuple(shape), dtype))
    except (TypeError, KeyError, ValueError) as error:
        raise BundleError(f"the state table is invalid ({error})") from error
    if len({row.name for row in table}) != len(table) or not table:
        raise BundleError("the state table is empty or lists a tensor twice")
    return table


def check_state(table: list[StateTensor], batch: int, values: dict[str, Any]) -> None:
    """Refuse values that are not a complete state.

    Args:
        table: The state table.
        batch: Number of rows.
        values: A tensor ``[batch, *shape]`` for each name in the table.

    Raises:
        EngineError: A tensor is missing, or its shape or type is wrong.
    """
    for row in table:
        value = values.get(row.name)
        expected = (batch, *row.shape)
        if value is None or value.shape != expected or value.dtype != np.dtype(row.dtype):
            raise EngineError(
                f"state tensor {row.name!r} must be {row.dtype} of shape {expected}; "
                f"got {None if value is None else (str(value.dtype), value.shape)}"
            )


def is_shared(row: StateTensor) -> bool:
    """Whether the past and present of a tensor share one buffer on ONNX Runtime.

    The memory's tensors are large, and a step changes one slot of them; repeating the step writes
    the same slot again.
    """
    return row.name.startswith("memory_")

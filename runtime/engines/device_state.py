"""State that stays where the engine computes: buffers, and a stream's hold on some of them."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import EngineError
from ..state_table import StateTensor, check_state
from .base import Learn

__all__ = ["Buffer", "DeviceState", "Lane", "LanePool", "check_tokens", "power_of_two"]


class Buffer(Protocol):
    """A tensor in the device's memory, rows first."""

    def read(self) -> npt.NDArray[Any]:
        """A copy of all rows."""
        ...

    def write(self, values: npt.NDArray[Any]) -> None:
        """Replace all rows."""
        ...

    def copy_rows(self, row: int, source: Any, source_row: int, rows: int) -> None:
        """Copy rows of another buffer over this one's; neither leaves the device."""
        ...

    def zero_rows(self, row: int, rows: int) -> None:
        """Set rows to zero."""
        ...


Allocate = Callable[[tuple[int, ...], str], Any]
"""Makes a :class:`Buffer` of zeros, of a shape and of numpy's name of a type. Each engine has
its own kind, with the address that it binds."""


class Lane:
    """Buffers for a fixed number of rows: two sides of the state, and what a step takes and gives.

    A step reads one side and writes the other, so that doing it twice changes nothing: a step
    that fails leaves the stream where it was, and so does one that is run to warm up.
    A captured CUDA graph is tied to addresses and shapes. So a step always runs all rows of its
    lane, used or not, and lanes are kept and lent out again.

    Args:
        table: The state table.
        vocab_size: Number of tokens.
        capacity: Number of rows.
        allocate: Makes a buffer.
        shared: Names of state tensors whose two sides are one buffer.
        exchange: Makes a buffer that crosses at each step; ``allocate`` when absent.
    """

    def __init__(
        self,
        table: list[StateTensor],
        vocab_size: int,
        capacity: int,
        allocate: Allocate,
        shared: frozenset[str] = frozenset(),
        exchange: Allocate | None = None,
    ) -> None:
        self.capacity = capacity
        exchange = exchange or allocate
        first = {row.name: allocate((capacity, *row.shape), row.dtype) for row in table}
        second = {
            row.name: first[row.name]
            if row.name in shared
            else allocate((capacity, *row.shape), row.dtype)
            for row in table
        }
        self.sides = (first, second)
        self.ids = exchange((capacity, 1), "int64")
        self.learn = exchange((capacity,), "float32")
        self.logits = exchange((capacity, 1, vocab_size), "float32")
        self.stream: Any = None
        """The queue of work that the buffers belong to, where the engine has one for each lane."""
        self.calls: Any = None
        """What the engine has prepared for a step, made at the first."""
        self.reading: Any = None
        """What the engine has prepared for reading prompts, made at the first."""
        self._ids = np.zeros((capacity, 1), np.int64)
        self._learn = np.zeros(capacity, np.float32)

    def tell(self, tokens: npt.NDArray[Any] | None, learn: Learn, batch: int) -> None:
        """Send a step's tokens ``[B]`` to the device, and whether to learn where that changed."""
        wanted = np.zeros_like(self._learn)
        wanted[:batch] = learn
        if not np.array_equal(wanted, self._learn):
            self.learn.write(wanted)
            self._learn = wanted
        if tokens is not None:
            self._ids[:batch, 0] = tokens
            self._ids[batch:] = 0
            self.ids.write(self._ids)

    def copy(self, side: int, source: Lane, source_side: int, rows: int) -> None:
        """Copy the first rows of one side of a lane to this one's."""
        for name, buffer in self.sides[side].items():
            buffer.copy_rows(0, source.sides[source_side][name], 0, rows)

    def zero(self, side: int, row: int, rows: int) -> None:
        """Set rows of one side to zero."""
        if rows > 0:
            for buffer in self.sides[side].values():
                buffer.zero_rows(row, rows)

    def keep(self) -> list[dict[str, npt.NDArray[Any]]]:
        """A copy of both sides, in the host's memory."""
        return [{name: buffer.read() for name, buffer in side.items()} for side in self.sides]

    def put_back(self, kept: list[dict[str, npt.NDArray[Any]]]) -> None:
        """Write a copy that :meth:`keep` made back."""
        for side, values in zip(self.sides, kept, strict=True):
            for name, value in values.items():
                side[name].write(value)


class LanePool:
    """Lanes that are free, by their number of rows.

    What is prepared for a lane, a captured graph above all, is expensive and cannot always be
    let go of again. There are as many lanes as there were ever states at once.

    Args:
        make: Makes a lane with a number of rows.
    """

    def __init__(self, make: Callable[[int], Lane]) -> None:
        self._make = make
        self._free: dict[int, list[Lane]] = {}
        self._lock = threading.Lock()

    def take(self, capacity: int) -> Lane:
        """A lane that nobody else holds, with side 0 at zeros."""
        with self._lock:
            free = self._free.get(capacity)
            lane = free.pop() if free else None
        if lane is None:
            return self._make(capacity)
        lane.zero(0, 0, capacity)
        return lane

    def give_back(self, lane: Lane) -> None:
        """Let others have a lane."""
        with self._lock:
            self._free.setdefault(lane.capacity, []).append(lane)

    def clear(self) -> None:
        """Let go of the free lanes."""
        with self._lock:
            self._free.clear()


class DeviceState:
    """The state of a stream, or of a batch of them, in a lane of the device's memory.

    Args:
        table: The state table.
        batch: Number of rows.
        pool: Where lanes come from.
        capacity_for: The rows of the lane that a number of rows needs.
    """

    def __init__(
        self,
        table: list[StateTensor],
        batch: int,
        pool: LanePool,
        capacity_for: Callable[[int], int],
    ) -> None:
        self.batch = batch
        self.side = 0
        self.lane = pool.take(capacity_for(batch))
        self._table, self._pool, self._capacity_for = table, pool, capacity_for
        self._hold()

    def _hold(self) -> None:
        """Give the lane back when this state is gone."""
        self._release = weakref.finalize(self, self._pool.give_back, self.lane)
        self._release.atexit = False

    def read(self) -> dict[str, npt.NDArray[Any]]:
        """A copy of every state tensor, by name, in the host's memory."""
        side = self.lane.sides[self.side]
        return {name: buffer.read()[: self.batch] for name, buffer in side.items()}

    def write(self, values: dict[str, npt.NDArray[Any]]) -> None:
        """Replace every state tensor.

        Raises:
            EngineError: A tensor is missing or has another shape or type.
        """
        check_state(self._table, self.batch, values)
        for row in self._table:
            whole = row.zeros(self.lane.capacity)
            whole[: self.batch] = values[row.name]
            self.lane.sides[self.side][row.name].write(whole)

    def resize(self, batch: int) -> None:
        """Change the number of rows; see :meth:`.EngineState.resize`."""
        rows = min(self.batch, batch)
        if batch > self.lane.capacity:
            lane = self._pool.take(self._capacity_for(batch))
            lane.copy(0, self.lane, self.side, rows)
            self._release()
            self.lane, self.side = lane, 0
            self._hold()
        self.lane.zero(self.side, rows, batch - rows)
        self.batch = batch

    def copy_row(self, row: int, source: DeviceState, source_row: int) -> None:
        """Copy one row of a state; see :meth:`.EngineState.copy_row`."""
        theirs = source.lane.sides[source.side]
        for name, buffer in self.lane.sides[self.side].items():
            buffer.copy_rows(row, theirs[name], source_row, 1)

    def mend(self, shared: frozenset[str]) -> None:
        """Clear what a failed step wrote into tensors that have one side.

        Args:
            shared: Their names.
        """
        for row in self._table:
            if row.name in shared and row.dtype.startswith("float"):
                buffer = self.lane.sides[self.side][row.name]
                buffer.write(np.nan_to_num(buffer.read(), nan=0, posinf=0, neginf=0))

    def copy(self) -> DeviceState:
        """A state of its own that stands where this one does."""
        twin = DeviceState(self._table, self.batch, self._pool, self._capacity_for)
        twin.lane.copy(0, self.lane, self.side, self.batch)
        return twin

    def copy_from(self, source: DeviceState) -> None:
        """Stand where another state of as many rows stands."""
        self.lane.copy(self.side, source.lane, source.side, self.batch)


def check_tokens(tokens: npt.NDArray[Any], vocab_size: int) -> None:
    """Refuse a token that does not exist: a GPU would read past the table and say nothing.

    Raises:
        EngineError: There is one; the stream is where it was.
    """
    if not (tokens.min() >= 0 and tokens.max() < vocab_size):
        raise EngineError(
            f"tokens must lie between 0 and {vocab_size - 1}; the stream is where it was"
        )


def power_of_two(batch: int) -> int:
    """The least power of two that is not below a number of rows."""
    return 1 << max(batch - 1, 0).bit_length()

"""State that stays in a device's memory: buffers, and the lane of them that a stream occupies."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import EngineError
from ..state_table import StateTensor, check_state, is_shared
from .base import EngineState, Learn, Values
from .checks import foreign_state, own_state
from .sides import SIDES, preceding

__all__ = ["Buffer", "DeviceState", "Lane", "LanePool", "power_of_two"]


class Buffer(Protocol):
    """A tensor in the device's memory, rows first."""

    def read(self) -> npt.NDArray[Any]:
        """Copy all rows to the host."""
        ...

    def write(self, values: npt.NDArray[Any]) -> None:
        """Replace all rows."""
        ...

    def copy_rows(self, row: int, source: Any, source_row: int, rows: int) -> None:
        """Replace rows by rows of another buffer; nothing leaves the device."""
        ...

    def zero_rows(self, row: int, rows: int) -> None:
        """Set rows to zero."""
        ...


Allocate = Callable[[tuple[int, ...], str], Any]
"""Makes a :class:`Buffer` of zeros from a shape and numpy's name of a type. Each engine has its
own kind, with the address that it binds."""


class Lane:
    """Buffers for a fixed number of rows: sides of the state, and a step's tokens and logits.

    A step reads one side and writes the next, so repeating it changes nothing: a step that
    fails, or that only warms up, leaves the stream where it was. A captured CUDA graph is tied to
    addresses and shapes, so a step always runs all rows of its lane, used or not, and lanes are
    reused.

    Args:
        table: The state table.
        vocab_size: Number of tokens.
        capacity: Number of rows.
        allocate: Makes a buffer.
        shared: Names of state tensors whose sides are one buffer.
        exchange: Makes a buffer that is copied between host and device at each step; defaults
            to ``allocate``.
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
        others = [
            {
                row.name: first[row.name]
                if row.name in shared
                else allocate((capacity, *row.shape), row.dtype)
                for row in table
            }
            for _ in range(SIDES - 1)
        ]
        self.sides = [first, *others]
        self.ids = exchange((capacity, 1), "int64")
        self.learn = exchange((capacity,), "float32")
        self.logits = exchange((capacity, 1, vocab_size), "float32")
        self.stream: Any = None
        """The queue of work that the buffers belong to, if the engine has one per lane."""
        self.calls: Any = None
        """What the engine prepares for a step, at the first one."""
        self.reading: Any = None
        """What the engine prepares for reading prompts, at the first one."""
        self._ids = np.zeros((capacity, 1), np.int64)
        self._learn = np.zeros(capacity, np.float32)

    def send(self, tokens: npt.NDArray[Any] | None, learn: Learn, batch: int) -> None:
        """Send a step's tokens ``[B]`` to the device, and ``learn`` if it has changed."""
        values = np.zeros_like(self._learn)
        values[:batch] = learn
        if not np.array_equal(values, self._learn):
            self.learn.write(values)
            self._learn = values
        if tokens is not None:
            self._ids[:batch, 0] = tokens
            self._ids[batch:] = 0
            self.ids.write(self._ids)

    def zero(self, side: int, row: int, rows: int) -> None:
        """Set rows of one side to zero."""
        if rows > 0:
            for buffer in self.sides[side].values():
                buffer.zero_rows(row, rows)

    def save(self) -> list[Values]:
        """Copy every side to the host."""
        return [{name: buffer.read() for name, buffer in side.items()} for side in self.sides]

    def restore(self, saved: list[Values]) -> None:
        """Write back what :meth:`save` copied."""
        for side, values in zip(self.sides, saved, strict=True):
            for name, value in values.items():
                side[name].write(value)


class LanePool:
    """Free lanes, by their number of rows.

    What an engine prepares for a lane, above all a captured graph, is expensive and cannot
    always be released. The pool grows to the largest number of states that ever lived at once.

    Args:
        make: Makes a lane with a number of rows.
    """

    def __init__(self, make: Callable[[int], Lane]) -> None:
        self._make = make
        self._free: dict[int, list[Lane]] = {}
        self._lanes: weakref.WeakSet[Lane] = weakref.WeakSet()
        # Reentrant: the garbage collector gives a lane back at any moment, in this very thread too.
        self._lock = threading.RLock()
        self._process = os.getpid()

    def take(self, capacity: int) -> Lane:
        """Take a lane for exclusive use, with side 0 at zeros."""
        self.check_process()
        with self._lock:
            free = self._free.get(capacity)
            lane = free.pop() if free else None
        if lane is None:
            lane = self._make(capacity)
            with self._lock:
                self._lanes.add(lane)
            return lane
        lane.zero(0, 0, capacity)
        return lane

    def give_back(self, lane: Lane) -> None:
        """Return a lane for others to take."""
        if os.getpid() != self._process:
            return  # a fork may have copied the lock while another thread held it
        with self._lock:
            self._free.setdefault(lane.capacity, []).append(lane)

    def clear(self) -> None:
        """Drop the free lanes, and what was prepared for the others."""
        if os.getpid() != self._process:
            return
        with self._lock:
            self._free.clear()
            for lane in list(self._lanes):
                lane.calls = lane.reading = None

    def check_process(self) -> None:
        """Refuse a process that was forked from the one that the lanes belong to.

        Raises:
            EngineError: This is another process.
        """
        if os.getpid() != self._process:
            raise EngineError(
                "the model was loaded before this process was forked, and a device's memory does "
                "not survive that; load it here, in a process started by multiprocessing's "
                "method 'spawn'"
            )

    def own_state(self, state: EngineState) -> DeviceState:
        """Narrow a state to one whose lane is of this pool.

        Raises:
            EngineError: It belongs to another engine, or to the process this one was forked from.
        """
        self.check_process()
        own = own_state(state, DeviceState)
        if own.pool is not self:
            raise foreign_state()
        return own


class DeviceState:
    """The state of a stream, or of a batch of them, in a lane of the device's memory.

    Args:
        table: The state table.
        batch: Number of rows.
        pool: The pool that lanes come from.
        capacity_for: Returns the rows of the lane that a number of rows needs.
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
        self.pool = pool
        self.lane = pool.take(capacity_for(batch))
        self._table, self._capacity_for = table, capacity_for
        self._hold()

    def _hold(self) -> None:
        """Give the lane back when this state is garbage-collected."""
        self._release = weakref.finalize(self, self.pool.give_back, self.lane)
        self._release.atexit = False

    def read(self) -> Values:
        """Copy every state tensor to the host."""
        self.pool.check_process()
        side = self.lane.sides[self.side]
        return {name: buffer.read()[: self.batch] for name, buffer in side.items()}

    def write(self, values: Values) -> None:
        """Replace every state tensor; see :meth:`.EngineState.write`."""
        self._write(self.side, self._table, values)

    def read_before(self) -> Values:
        """Copy what the last step read; see :meth:`.EngineState.read_before`."""
        self.pool.check_process()
        side = self.lane.sides[preceding(self.side)]
        return {row.name: side[row.name].read()[: self.batch] for row in self._small}

    def write_before(self, values: Values) -> None:
        """Replace what the last step read; see :meth:`.EngineState.write_before`."""
        self._write(preceding(self.side), self._small, values)

    @property
    def _small(self) -> list[StateTensor]:
        return [row for row in self._table if not is_shared(row)]

    def _write(self, side: int, table: list[StateTensor], values: Values) -> None:
        self.pool.check_process()
        check_state(table, self.batch, values)
        for row in table:
            whole = row.zeros(self.lane.capacity)
            whole[: self.batch] = values[row.name]
            self.lane.sides[side][row.name].write(whole)

    def resize(self, batch: int) -> None:
        """Change the number of rows; see :meth:`.EngineState.resize`."""
        self.pool.check_process()
        rows, end = min(self.batch, batch), max(self.batch, batch)
        if batch > self.lane.capacity:
            lane, release = self.pool.take(self._capacity_for(batch)), self._release
            self._copy_rows(lane, 0, self, 0, rows)
            # The old lane is given back last: an interrupt must not lend it to another state too.
            self.lane, end = lane, lane.capacity
            self._hold()
            release()
        # Unused rows are computed too. What an earlier stream left in them is not finite, perhaps,
        # and reaches the others where a row depends on its batch.
        self.lane.zero(self.side, rows, end - rows)
        self.batch = batch

    def copy_row(self, row: int, source: EngineState, source_row: int) -> None:
        """Replace one row; see :meth:`.EngineState.copy_row`."""
        self._copy_rows(self.lane, row, self.pool.own_state(source), source_row, 1)

    def _copy_rows(
        self, lane: Lane, row: int, source: DeviceState, source_row: int, rows: int
    ) -> None:
        """Copy rows of a state, and what its last step read, to this state's sides of a lane."""
        sides = (
            (self.side, source.side, self._table),
            (preceding(self.side), preceding(source.side), self._small),
        )
        for side, source_side, table in sides:
            for name in (tensor.name for tensor in table):
                buffer = source.lane.sides[source_side][name]
                lane.sides[side][name].copy_rows(row, buffer, source_row, rows)

    def undo_point(self) -> Callable[[], None]:
        """Return a function that undoes the next step; see :meth:`.EngineState.undo_point`."""
        side = self.side

        def undo() -> None:
            self.side = side

        return undo

    def repair(self, shared: frozenset[str]) -> None:
        """Clear what a failed step wrote into tensors that have one side.

        Args:
            shared: Their names.
        """
        for row in self._table:
            if row.name in shared and row.dtype.startswith("float"):
                buffer = self.lane.sides[self.side][row.name]
                buffer.write(np.nan_to_num(buffer.read(), nan=0, posinf=0, neginf=0))

    def copy(self) -> DeviceState:
        """Return an independent copy."""
        twin = DeviceState(self._table, self.batch, self.pool, self._capacity_for)
        twin.copy_from(self)
        return twin

    def copy_from(self, source: DeviceState) -> None:
        """Replace all rows by those of a state of the same size."""
        self._copy_rows(self.lane, 0, source, 0, self.batch)


def power_of_two(batch: int) -> int:
    """Round a number of rows up to a power of two."""
    return 1 << max(batch - 1, 0).bit_length()

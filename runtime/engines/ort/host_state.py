"""The state of streams in the host's memory, and the calls that are bound to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...state_table import StateTensor, check_state, is_shared
from ..base import EngineState, Values
from ..checks import own_state
from ..sides import SIDES, preceding

__all__ = ["Binding", "OnnxState"]


@dataclass(frozen=True)
class Binding:
    """An I/O binding.

    Attributes:
        io: ONNX Runtime's object, which holds bare addresses.
        arrays: The arrays at those addresses, kept alive as long as the binding.
    """

    io: Any
    arrays: tuple[dict[str, npt.NDArray[Any]], ...]


@dataclass(frozen=True)
class _Buffers:
    """What a state allocates: the sides of the state, and what a step takes and gives."""

    capacity: int
    sides: list[Values]
    ids: npt.NDArray[Any]
    learn: npt.NDArray[Any]
    logits: list[npt.NDArray[Any]]

    @classmethod
    def allocate(cls, table: list[StateTensor], vocab_size: int, capacity: int) -> _Buffers:
        shared = {row.name: row.zeros(capacity) for row in table if is_shared(row)}
        sides = [
            {
                row.name: shared[row.name] if row.name in shared else row.zeros(capacity)
                for row in table
            }
            for _ in range(SIDES)
        ]
        # As many of these: a step that fails leaves the last prediction alone.
        logits = [np.zeros((capacity, 1, vocab_size), np.float32) for _ in range(SIDES)]
        ids, learn = np.zeros((capacity, 1), np.int64), np.ones(capacity, np.float32)
        return cls(capacity, sides, ids, learn, logits)


class OnnxState:
    """State in sets of buffers that steps go round in: see :mod:`..sides`.

    The memory's tensors are large and change in one slot per step; their past and present share a
    buffer, and a repeated step writes the same slot again.

    The buffers may hold more rows than are in use, so that a batch whose streams come and go
    binds the first rows of the same buffers.

    Args:
        table: The state table.
        vocab_size: Number of tokens.
        batch: Number of rows.
    """

    batch: int
    sides: list[Values]
    ids: npt.NDArray[Any]
    learn: npt.NDArray[Any]
    logits: list[npt.NDArray[Any]]
    _buffers: _Buffers

    def __init__(self, table: list[StateTensor], vocab_size: int, batch: int) -> None:
        self.table = table
        self._vocab_size = vocab_size
        self.side = 0
        self.bind_to(None)
        self._use(_Buffers.allocate(table, vocab_size, batch), batch)

    def bind_to(self, session: Any) -> None:
        """Drop what was bound to another session: a binding works with its own alone.

        Args:
            session: ONNX Runtime's session of the decode graph.
        """
        self.session = session
        # The calls of a step, by number of rows; each call has a binding for every side.
        self.calls: dict[int, list[list[Binding]]] = {}
        self.bindings: dict[range, list[Binding]] = {}

    def _use(self, buffers: _Buffers, batch: int) -> None:
        """View the first rows of some buffers, which stay contiguous and where they are."""
        # One call, so that an interrupt leaves all of it undone or all of it done.
        self.__dict__.update(
            _buffers=buffers,
            batch=batch,
            sides=[{name: a[:batch] for name, a in side.items()} for side in buffers.sides],
            ids=buffers.ids[:batch],
            learn=buffers.learn[:batch],
            logits=[a[:batch] for a in buffers.logits],
        )

    def undo_point(self) -> Callable[[], None]:
        """Return a function that undoes the next step; see :meth:`.EngineState.undo_point`."""
        side = self.side

        def undo() -> None:
            self.side = side

        return undo

    def read(self) -> Values:
        """Copy every state tensor."""
        return {name: value.copy() for name, value in self.sides[self.side].items()}

    def read_before(self) -> Values:
        """Copy what the last step read; see :meth:`.EngineState.read_before`."""
        before = self.sides[preceding(self.side)]
        return {row.name: before[row.name].copy() for row in self.table if not is_shared(row)}

    def write_before(self, values: Values) -> None:
        """Replace what the last step read; see :meth:`.EngineState.write_before`."""
        rows = [row for row in self.table if not is_shared(row)]
        check_state(rows, self.batch, values)
        for row in rows:
            self.sides[preceding(self.side)][row.name][...] = values[row.name]

    def write(self, values: Values) -> None:
        """Replace every state tensor; see :meth:`.EngineState.write`."""
        check_state(self.table, self.batch, values)
        for row in self.table:
            self.sides[self.side][row.name][...] = values[row.name]

    def resize(self, batch: int) -> None:
        """Change the number of rows; see :meth:`.EngineState.resize`."""
        rows, buffers = min(self.batch, batch), self._buffers
        if batch > buffers.capacity:
            capacity = max(batch, 2 * buffers.capacity)
            buffers = _Buffers.allocate(self.table, self._vocab_size, capacity)
            for side, names in self._both_sides():
                for name in names:
                    buffers.sides[side][name][:rows] = self.sides[side][name][:rows]
            self.bind_to(None)
        for value in buffers.sides[self.side].values():
            value[rows:batch] = 0
        self._use(buffers, batch)

    def copy_row(self, row: int, source: EngineState, source_row: int) -> None:
        """Replace one row; see :meth:`.EngineState.copy_row`."""
        source = own_state(source, OnnxState)
        theirs = source.side, preceding(source.side)
        for (side, names), source_side in zip(self._both_sides(), theirs, strict=True):
            for name in names:
                self.sides[side][name][row] = source.sides[source_side][name][source_row]

    def _both_sides(self) -> list[tuple[int, list[str]]]:
        """The side that counts, and the one before it, which shares the memory's tensors."""
        small = [row.name for row in self.table if not is_shared(row)]
        return [(self.side, [row.name for row in self.table]), (preceding(self.side), small)]

    def repair(self) -> None:
        """Clear what a failed step wrote into a tensor that has one side.

        That is a slot of the memory, which the next step writes before it reads.
        """
        for row in self.table:
            if is_shared(row) and row.dtype.startswith("float"):
                value = self.sides[self.side][row.name]
                value[~np.isfinite(value)] = 0

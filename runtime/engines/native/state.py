"""The state of streams, as blocks of memory that the library steps in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import EngineError
from ...state_table import StateTensor, check_state, is_shared
from ..base import EngineState, Learn, Values
from ..checks import foreign_state, own_state
from ..sides import SIDES, following
from .library import block
from .packed_model import PackedModel

__all__ = ["NativeState"]


class NativeState:
    """One block for each row.

    A block keeps what its last step read beside what it wrote: windows lie in buffers with room to
    spare, and small tensors in rings of three. A step is undone by moving a cursor back.

    Args:
        model: The packed model.
        batch: Number of rows.
    """

    batch: int

    def __init__(self, model: PackedModel, batch: int) -> None:
        self.model = model
        self._side = 0
        # What `write_before` was given, with the clocks it belongs to, where a block cannot hold it
        # beside its state.
        self._before: tuple[npt.NDArray[np.int64], Values] | None = None
        self._allocate(batch, batch)
        self._reset(0, batch)

    def _allocate(self, capacity: int, batch: int) -> None:
        model, vocab_size = self.model, self.model.vocab_size
        blocks = block(capacity * model.state_size).reshape(capacity, model.state_size)
        # As many logits as sides: a step that fails leaves the last prediction alone.
        logits = np.zeros((SIDES, capacity, vocab_size), np.float32)
        self.__dict__.update(
            capacity=capacity,
            blocks=blocks,
            # A block begins with its clock: the steps that it has taken.
            clocks=blocks[:, :8].view(np.int64)[:, 0],
            pointers=_addresses(blocks),
            tokens=np.zeros(capacity, np.int32),
            learn=np.ones(capacity, np.float32),
            logits=logits,
            batch=batch,
        )
        self._bind()

    def _bind(self) -> None:
        """Note the addresses that a step passes to the library."""
        self._scratch = block(self.model.scratch_size(max(1, self.batch)))
        self._outputs = [_addresses(side) for side in self.logits]
        own = (self.pointers.ctypes.data, self.tokens.ctypes.data, self.learn.ctypes.data)
        scratch = self._scratch.ctypes.data
        self._calls = [
            (self.model.address, self.batch, *own, outputs.ctypes.data, scratch)
            for outputs in self._outputs
        ]
        self._predictions = [side[: self.batch] for side in self.logits]

    def _reset(self, start: int, stop: int) -> None:
        for row in range(start, stop):
            self.model.library.rillet_state_reset(self.model.address, int(self.pointers[row]))

    def advance(
        self, tokens: npt.NDArray[Any], learn: Learn
    ) -> tuple[int, npt.NDArray[np.float32]]:
        """Read a token per row.

        Returns:
            The library's status, and the log-probabilities ``[B, V]``.
        """
        batch, side = self.batch, self._side
        self.tokens[:batch] = tokens
        self.learn[:batch] = learn
        status = self.model.library.rillet_read(*self._calls[side])
        self._side = following(side)
        return status, self._predictions[side]

    def undo_point(self) -> Callable[[], None]:
        """Return a function that undoes the next step; see :meth:`.EngineState.undo_point`."""
        side, clocks = self._side, self.clocks[: self.batch].copy()

        def undo() -> None:
            self._side = side
            library, model = self.model.library, self.model.address
            for row in np.flatnonzero(self.clocks[: self.batch] == clocks + 1):
                library.rillet_state_back(model, int(self.pointers[row]))

        return undo

    def whole_undo_point(self) -> Callable[[], None]:
        """Return a function that undoes any number of steps; it costs a copy of the state."""
        side, blocks = self._side, self.blocks[: self.batch].copy()

        def undo() -> None:
            self._side = side
            self.blocks[: self.batch] = blocks

        return undo

    def read(self) -> Values:
        """Copy every state tensor."""
        return self._read(self.model.state_table, before=False)

    def read_before(self) -> Values:
        """Copy what the last step read; see :meth:`.EngineState.read_before`."""
        if self._before is not None:
            clocks, values = self._before
            if np.array_equal(clocks, self.clocks[: self.batch]):
                return {name: value.copy() for name, value in values.items()}
        return self._read(self._small, before=True)

    def write(self, values: Values) -> None:
        """Replace every state tensor; see :meth:`.EngineState.write`."""
        check_state(self.model.state_table, self.batch, values)
        before = self.read_before()
        self._write(self.model.state_table, values, before=False)
        self._keep_before(before)

    def write_before(self, values: Values) -> None:
        """Replace what the last step read; see :meth:`.EngineState.write_before`."""
        check_state(self._small, self.batch, values)
        self._write(self._small, values, before=True)
        self._keep_before({row.name: values[row.name].copy() for row in self._small})

    def _keep_before(self, values: Values) -> None:
        """Keep what the last step read apart, if the blocks hold something else."""
        self._before = None
        held = self._read(self._small, before=True)
        if any(held[name].tobytes() != value.tobytes() for name, value in values.items()):
            self._before = (self.clocks[: self.batch].copy(), values)

    @property
    def _small(self) -> list[StateTensor]:
        """What a state keeps twice: all but the memory."""
        return [row for row in self.model.state_table if not is_shared(row)]

    def _read(self, table: list[StateTensor], before: bool) -> Values:
        values = {row.name: row.zeros(self.batch) for row in table}
        for index, row in enumerate(self.model.state_table):
            for place, value in enumerate(values.get(row.name, ())):
                address = values[row.name].ctypes.data + place * np.asarray(value).nbytes
                self.model.library.rillet_state_get(
                    self.model.address, int(self.pointers[place]), before, index, address
                )
        return values

    def _write(self, table: list[StateTensor], values: Values, before: bool) -> None:
        blocks = self.blocks[: self.batch].copy()
        names = {row.name for row in table}
        for index, row in enumerate(self.model.state_table):
            if row.name not in names:
                continue
            source = np.ascontiguousarray(values[row.name])
            for place in range(self.batch):
                address = source.ctypes.data + place * (source.nbytes // self.batch)
                status = self.model.library.rillet_state_set(
                    self.model.address, int(self.pointers[place]), before, index, address
                )
                if status != 0:
                    self.blocks[: self.batch] = blocks
                    raise EngineError(
                        f"state tensor {row.name!r} holds a token, slot or position that does "
                        "not exist; restore a saved stream, or reset it"
                    )

    def resize(self, batch: int) -> None:
        """Change the number of rows; see :meth:`.EngineState.resize`."""
        rows, before = min(self.batch, batch), self._before
        if before is not None:
            self._before = None if batch != self.batch else before
        if batch > self.capacity:
            blocks, logits = self.blocks, self.logits
            self._allocate(max(batch, 2 * self.capacity), batch)
            self.blocks[:rows] = blocks[:rows]
            self.logits[:, :rows] = logits[:, :rows]
        else:
            self.batch = batch
            self._bind()
        self._reset(rows, batch)

    def copy_row(self, row: int, source: EngineState, source_row: int) -> None:
        """Replace one row; see :meth:`.EngineState.copy_row`."""
        source = own_state(source, NativeState)
        if source.model is not self.model:
            raise foreign_state()
        apart = self._before is not None or source.has_before
        before = self.read_before() if apart else {}
        theirs = source.read_before() if apart else {}
        self.blocks[row] = source.blocks[source_row]
        for name, value in before.items():
            value[row] = theirs[name][source_row]
        if apart:
            self._keep_before(before)

    @property
    def has_before(self) -> bool:
        """Whether what the last step read is kept apart from the blocks."""
        return self._before is not None


def _addresses(rows: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
    """The address of each row of a contiguous array."""
    size = rows[0].nbytes if len(rows) else 0
    return rows.ctypes.data + np.arange(len(rows), dtype=np.uint64) * np.uint64(size)

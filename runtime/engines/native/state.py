"""The state of streams, as blocks of memory that the library steps in place."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import EngineError
from ...state_table import StateTensor, check_state, is_shared
from ..base import EngineState, Learn, Values
from ..checks import foreign_state, own_state
from ..sides import SIDES, following
from .library import NOT_FINITE, block
from .packed_model import PackedModel

__all__ = ["NativeState", "row_addresses"]


@dataclass(frozen=True)
class _Buffers:
    """What a state allocates, and what its rows are called by."""

    blocks: npt.NDArray[np.uint8]
    clocks: npt.NDArray[np.int64]
    addresses: npt.NDArray[np.uint64]
    tokens: npt.NDArray[np.int32]
    learn: npt.NDArray[np.float32]
    logits: npt.NDArray[np.float32]

    @classmethod
    def allocate(cls, model: PackedModel, capacity: int) -> _Buffers:
        blocks = block(capacity * model.state_size).reshape(capacity, model.state_size)
        return cls(
            blocks,
            # A block begins with its clock: the steps that it has taken.
            blocks[:, :8].view(np.int64)[:, 0],
            row_addresses(blocks),
            np.zeros(capacity, np.int32),
            np.ones(capacity, np.float32),
            # As many logits as sides: a step that fails leaves the last prediction alone.
            np.zeros((SIDES, capacity, model.vocab_size), np.float32),
        )


class _Calls:
    """The arguments of a step of some rows: one call for each side of the logits."""

    def __init__(self, model: PackedModel, buffers: _Buffers, batch: int) -> None:
        # Only addresses go into the calls, so what they are of is kept here.
        self._scratch = block(model.scratch_size(max(1, batch)))
        self._outputs = [row_addresses(side) for side in buffers.logits]
        inputs = (buffers.addresses, buffers.tokens, buffers.learn)
        own = [array.ctypes.data for array in inputs]
        scratch = self._scratch.ctypes.data
        self.arguments = [
            (model.address, batch, *own, outputs.ctypes.data, scratch) for outputs in self._outputs
        ]
        self.tokens, self.learn = buffers.tokens[:batch], buffers.learn[:batch]
        self.logits = [side[:batch] for side in buffers.logits]


class NativeState:
    """One block for each row.

    A block keeps what its last step read beside what it wrote: windows lie in buffers with room to
    spare, and small tensors in rings of three. A step is undone by moving a cursor back.

    The blocks may be more than the rows in use, so that a batch whose streams come and go steps the
    first ones.

    Args:
        model: The packed model.
        batch: Number of rows.
    """

    batch: int
    blocks: npt.NDArray[np.uint8]
    clocks: npt.NDArray[np.int64]
    _buffers: _Buffers
    _calls: _Calls

    def __init__(self, model: PackedModel, batch: int) -> None:
        self.model = model
        self._side = 0
        # What `write_before` was given, with the clocks it belongs to, where a block cannot hold it
        # beside its state.
        self._before: tuple[npt.NDArray[np.int64], Values] | None = None
        buffers = _Buffers.allocate(model, batch)
        self._reset(buffers, range(batch))
        self._use(buffers, batch)

    def _use(self, buffers: _Buffers, batch: int) -> None:
        """Step the first rows of some buffers."""
        # One call, so that an interrupt leaves all of it undone or all of it done.
        self.__dict__.update(
            _buffers=buffers,
            _calls=_Calls(self.model, buffers, batch),
            batch=batch,
            blocks=buffers.blocks[:batch],
            clocks=buffers.clocks[:batch],
        )

    def _reset(self, buffers: _Buffers, rows: range) -> None:
        for row in rows:
            address = int(buffers.addresses[row])
            self.model.library.rillet_state_reset(self.model.address, address)

    def address(self, row: int) -> int:
        """Where a row's block lies."""
        return int(self._buffers.addresses[row])

    def advance(
        self, tokens: npt.NDArray[Any], learn: Learn
    ) -> tuple[int, npt.NDArray[np.float32]]:
        """Read a token per row.

        Returns:
            The library's status, and the log-probabilities ``[B, V]``.
        """
        calls, side = self._calls, self._side
        calls.tokens[...] = tokens
        calls.learn[...] = learn
        status: int = self.model.library.rillet_read(*calls.arguments[side])
        self._side = following(side)
        return status, calls.logits[side]

    def generate(
        self,
        logits: npt.NDArray[Any],
        sampling: ctypes.Structure,
        uniforms: npt.NDArray[np.float64],
        learn: Learn,
        end_token: int = -1,
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Draw tokens and read them; a failure leaves the state too far.

        Args:
            logits: Log-probabilities now, ``[B, V]``.
            sampling: How to draw.
            uniforms: A number in [0, 1) for each token, ``[K, B]``.
            learn: What to learn of the tokens.
            end_token: The call ends after the step in which a row draws it.

        Returns:
            Tokens and their log-probabilities, ``[k, B]``, and the logits after the last,
            ``[B, V]``, which are not finite if it failed.
        """
        calls, side = self._calls, self._side
        calls.logits[side][...] = logits
        calls.learn[...] = learn
        numbers = np.ascontiguousarray(uniforms, np.float64)
        tokens = np.empty(numbers.shape, np.int32)
        logprobs, written = np.empty(numbers.shape, np.float32), ctypes.c_size_t()
        model, batch, states, _, learns, outputs, scratch = calls.arguments[side]
        status = self.model.library.rillet_generate(
            *(model, batch, len(numbers), states, outputs),
            *(ctypes.addressof(sampling), numbers.ctypes.data, None, learns, end_token),
            *(tokens.ctypes.data, logprobs.ctypes.data, ctypes.addressof(written), scratch),
        )
        self._side = following(side)
        if status == NOT_FINITE:
            calls.logits[side][...] = np.nan
        count = written.value
        return tokens[:count], logprobs[:count], calls.logits[side]

    def undo_point(self) -> Callable[[], None]:
        """Return a function that undoes the next step; see :meth:`.EngineState.undo_point`."""
        side, clocks = self._side, self.clocks.copy()

        def undo() -> None:
            self._side = side
            library, model = self.model.library, self.model.address
            for row in np.flatnonzero(self.clocks == clocks + 1).tolist():
                library.rillet_state_back(model, self.address(row))

        return undo

    def whole_undo_point(self) -> Callable[[], None]:
        """Return a function that undoes any number of steps; it costs a copy of the state."""
        side, blocks = self._side, self.blocks.copy()

        def undo() -> None:
            self._side = side
            self.blocks[...] = blocks

        return undo

    def read(self) -> Values:
        """Copy every state tensor."""
        return self._read(self.model.state_table, before=False)

    def read_before(self) -> Values:
        """Copy what the last step read; see :meth:`.EngineState.read_before`."""
        if self._before is not None:
            clocks, values = self._before
            if np.array_equal(clocks, self.clocks):
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
            self._before = (self.clocks.copy(), values)

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
                    self.model.address, self.address(place), before, index, address
                )
        return values

    def _write(self, table: list[StateTensor], values: Values, before: bool) -> None:
        blocks = self.blocks.copy()
        names = {row.name for row in table}
        for index, row in enumerate(self.model.state_table):
            if row.name not in names:
                continue
            source = np.ascontiguousarray(values[row.name])
            for place in range(self.batch):
                address = source.ctypes.data + place * (source.nbytes // self.batch)
                status = self.model.library.rillet_state_set(
                    self.model.address, self.address(place), before, index, address
                )
                if status != 0:
                    self.blocks[...] = blocks
                    raise EngineError(
                        f"state tensor {row.name!r} holds a token, slot or position that does "
                        "not exist; restore a saved stream, or reset it"
                    )

    def resize(self, batch: int) -> None:
        """Change the number of rows; see :meth:`.EngineState.resize`."""
        rows, buffers = min(self.batch, batch), self._buffers
        before = None if self._before is None else self.read_before()
        if batch > len(buffers.blocks):
            buffers = _Buffers.allocate(self.model, max(batch, 2 * len(buffers.blocks)))
            buffers.blocks[:rows] = self.blocks[:rows]
            buffers.logits[:, :rows] = self._buffers.logits[:, :rows]
        self._reset(buffers, range(rows, batch))
        self._use(buffers, batch)
        if before is not None:
            kept = {row.name: row.zeros(batch) for row in self._small}
            for name, value in kept.items():
                value[:rows] = before[name][:rows]
            self._keep_before(kept)

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


def row_addresses(rows: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
    """The address of each row of a contiguous array."""
    size = rows[0].nbytes if len(rows) else 0
    offsets = np.arange(len(rows), dtype=np.uint64) * np.uint64(size)
    addresses: npt.NDArray[np.uint64] = offsets + np.uint64(rows.ctypes.data)
    return addresses

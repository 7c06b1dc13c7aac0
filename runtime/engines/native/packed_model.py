"""A model's weights, packed by the library."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import EngineError
from ...state_table import StateTensor
from .library import MESSAGE, PackingError, load_library, packed

__all__ = ["PackedModel"]

_TYPES = ("float32", "int32", "int64")


class _Tensor(ctypes.Structure):
    """``rillet_tensor``."""

    _fields_ = (
        ("name", ctypes.c_char * 24),
        ("type", ctypes.c_int),
        ("dims", ctypes.c_int32),
        ("shape", ctypes.c_int64 * 2),
        ("bytes", ctypes.c_uint64),
    )


class PackedModel:
    """Weights in the library's own layout. Threads share it, and no step changes it.

    Args:
        path: The file ``weights.safetensors``.

    Raises:
        EngineError: The file is damaged, or holds a model that the library cannot run, or there is
            no library.
    """

    def __init__(self, path: Path) -> None:
        self.library = load_library()
        try:
            self._memory = packed("model", np.fromfile(path, np.uint8))
        except PackingError as error:
            raise EngineError(
                f"the native engine cannot run {path} ({error}); use provider 'cpu', or export "
                "the model again"
            ) from error
        self.address = self._memory.ctypes.data
        self.vocab_size = int(self.library.rillet_vocabulary(self.address))
        self._lay_out()

    @property
    def kernels(self) -> str:
        """The instruction set that the library chose for this processor."""
        name: Any = self.library.rillet_model_kernels(self.address)
        return str(name.decode())

    def choose_kernels(self, name: str) -> bool:
        """Compute with another instruction set; returns whether this processor has it."""
        status: int = self.library.rillet_model_choose(self.address, name.encode())
        return status == 0

    def shrink(self, memory: int, slack: int) -> bool:
        """Make streams smaller, before the first begins.

        Args:
            memory: Slots of all contexts, or past steps; 0 keeps them.
            slack: Steps between two moves of the windows, 1 to 16.

        Returns:
            Whether this model can have them.
        """
        status: int = self.library.rillet_model_shrink(self.address, memory, slack)
        self._lay_out()
        return status == 0

    def packed(self) -> bytes:
        """What any little-endian processor can run."""
        chosen = self.kernels
        self.choose_kernels("plain")
        content = self._memory[: self.library.rillet_model_portable(self.address)].tobytes()
        self.choose_kernels(chosen)
        return content

    @property
    def build_flags(self) -> str:
        """What the library can be compiled with to run models of this kind alone."""
        text = ctypes.create_string_buffer(MESSAGE)
        self.library.rillet_model_flags(self.address, text)
        return text.value.decode()

    def _lay_out(self) -> None:
        self.state_size = int(self.library.rillet_state_size(self.address))
        self.state_table = self._state_table()

    def scratch_size(self, rows: int) -> int:
        """Bytes of scratch for a call of some rows."""
        return int(self.library.rillet_scratch_size(self.address, rows))

    def _state_table(self) -> list[StateTensor]:
        table: list[StateTensor] = []
        while address := self.library.rillet_state_tensor(self.address, len(table)):
            tensor = _Tensor.from_address(address)
            shape = tuple(int(size) for size in tensor.shape[: tensor.dims])
            table.append(StateTensor(tensor.name.decode(), shape, _TYPES[tensor.type]))
        return table

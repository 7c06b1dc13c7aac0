"""A tokenizer, packed by the library."""

from __future__ import annotations

import ctypes

import numpy as np

from ...errors import EngineError
from .library import MESSAGE, block, load_library

__all__ = ["PackedTokenizer"]


class PackedTokenizer:
    """A tokenizer in the library's own layout.

    Args:
        source: The contents of ``tokenizer.json``.

    Raises:
        EngineError: The library does not read tokenizers of this kind, or there is no library.
    """

    def __init__(self, source: bytes) -> None:
        library = load_library()
        text = np.frombuffer(source, np.uint8)
        given = (text.ctypes.data, text.size)
        message, size = ctypes.create_string_buffer(MESSAGE), ctypes.c_size_t()
        status = library.rillet_tokenizer_size(*given, ctypes.addressof(size), message)
        if status == 0:
            self._memory = block(size.value)
            address = self._memory.ctypes.data
            status = library.rillet_tokenizer_load(address, size.value, *given, message)
        if status != 0:
            reason = message.value.decode("utf-8", "replace")
            raise EngineError(f"the native library cannot read tokenizer.json: {reason}")
        self.decode_size = int(library.rillet_decode_size(address))

    def packed(self) -> bytes:
        """The whole block, for any little-endian processor."""
        return self._memory.tobytes()

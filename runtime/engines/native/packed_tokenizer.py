"""A tokenizer, packed by the library."""

from __future__ import annotations

import numpy as np

from ...errors import EngineError
from .library import PackingError, load_library, packed

__all__ = ["PackedTokenizer"]


class PackedTokenizer:
    """A tokenizer in the library's own layout.

    Args:
        source: The contents of ``tokenizer.json``.

    Raises:
        EngineError: The library does not read tokenizers of this kind, or there is no library.
    """

    def __init__(self, source: bytes) -> None:
        try:
            self._memory = packed("tokenizer", np.frombuffer(source, np.uint8))
        except PackingError as error:
            raise EngineError(f"the native library cannot read tokenizer.json: {error}") from error
        self.decode_size = int(load_library().rillet_decode_size(self._memory.ctypes.data))

    def packed(self) -> bytes:
        """The whole block, for any little-endian processor."""
        return self._memory.tobytes()

"""The C library, as Python calls it: see ``native/include/rillet.h``."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import EngineError

__all__ = [
    "LIBRARY",
    "MESSAGE",
    "NOT_FINITE",
    "Address",
    "PackingError",
    "block",
    "library_path",
    "load_library",
    "packed",
]

LIBRARY = "librillet.native"
"""The library's file name, without the suffix. Python takes no name with a point for a module."""

NOT_FINITE = 5
"""Status of a call whose log-probabilities are not all finite."""

MESSAGE = 160
"""Bytes of a message, its final zero included."""

Address = ctypes.c_void_p

_ALIGN = 64
_SUFFIXES = (".so", ".dylib", ".dll", ".pyd")

_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "rillet_model_size": (ctypes.c_int, [Address, ctypes.c_size_t, Address, ctypes.c_char_p]),
    "rillet_model_load": (
        ctypes.c_int,
        [Address, ctypes.c_size_t, Address, ctypes.c_size_t, ctypes.c_char_p],
    ),
    "rillet_model_kernels": (ctypes.c_char_p, [Address]),
    "rillet_model_choose": (ctypes.c_int, [Address, ctypes.c_char_p]),
    "rillet_model_shrink": (ctypes.c_int, [Address, ctypes.c_int64, ctypes.c_int32]),
    "rillet_model_portable": (ctypes.c_size_t, [Address]),
    "rillet_model_flags": (None, [Address, ctypes.c_char_p]),
    "rillet_vocabulary": (ctypes.c_int32, [Address]),
    "rillet_state_size": (ctypes.c_size_t, [Address]),
    "rillet_scratch_size": (ctypes.c_size_t, [Address, ctypes.c_size_t]),
    "rillet_state_reset": (None, [Address, Address]),
    "rillet_read": (
        ctypes.c_int,
        [Address, ctypes.c_size_t, Address, Address, Address, Address, Address],
    ),
    "rillet_random_seed": (None, [Address, ctypes.c_uint64]),
    "rillet_random_next": (ctypes.c_double, [Address]),
    "rillet_draw": (ctypes.c_int32, [Address, Address, Address, ctypes.c_double, Address]),
    "rillet_generate": (
        ctypes.c_int,
        [
            *(Address, ctypes.c_size_t, ctypes.c_size_t, Address, Address, Address, Address),
            *(Address, Address, ctypes.c_int32, Address, Address, Address, Address),
        ],
    ),
    "rillet_tokenizer_size": (
        ctypes.c_int,
        [Address, ctypes.c_size_t, Address, ctypes.c_char_p],
    ),
    "rillet_tokenizer_load": (
        ctypes.c_int,
        [Address, ctypes.c_size_t, Address, ctypes.c_size_t, ctypes.c_char_p],
    ),
    "rillet_decode_size": (ctypes.c_size_t, [Address]),
    "rillet_state_back": (None, [Address, Address]),
    "rillet_state_tensor": (Address, [Address, ctypes.c_size_t]),
    "rillet_state_get": (None, [Address, Address, ctypes.c_int, ctypes.c_size_t, Address]),
    "rillet_state_set": (
        ctypes.c_int,
        [Address, Address, ctypes.c_int, ctypes.c_size_t, Address],
    ),
}
"""Result and arguments of each function."""


def library_path() -> Path | None:
    """The file of the library; ``None`` where it was not built."""
    folder = Path(__file__).parent
    files = (folder / f"{LIBRARY}{suffix}" for suffix in _SUFFIXES)
    return next((file for file in files if file.is_file()), None)


@functools.cache
def load_library() -> ctypes.CDLL:
    """Load the library.

    Raises:
        EngineError: It was not built, or cannot be loaded.
    """
    path = library_path()
    if path is None:
        raise EngineError(
            "this installation has no native library; install a wheel for this platform, or a C "
            "compiler and then: pip install --force-reinstall --no-binary rillet rillet"
        )
    try:
        library = ctypes.CDLL(str(path))
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise EngineError(
            f"the native library {path} cannot be loaded ({error}); reinstall rillet"
        ) from error
    return library


def block(size: int) -> npt.NDArray[np.uint8]:
    """Zeros as the library wants them: aligned, and rounded up to whole blocks."""
    size = -(-size // _ALIGN) * _ALIGN
    raw = np.zeros(size + _ALIGN, np.uint8)
    start = -raw.ctypes.data % _ALIGN
    return raw[start : start + size]


class PackingError(Exception):
    """The library refuses a file; the message is its reason."""


def packed(kind: str, source: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """A file in the library's own layout: its size is asked for first.

    Args:
        kind: ``model`` or ``tokenizer``.
        source: The file's bytes.

    Raises:
        EngineError: There is no library.
        PackingError: The file is damaged, or of a kind that the library does not know.
    """
    library, given = load_library(), (source.ctypes.data, source.size)
    message, size = ctypes.create_string_buffer(MESSAGE), ctypes.c_size_t()
    status = getattr(library, f"rillet_{kind}_size")(*given, ctypes.addressof(size), message)
    memory = block(size.value)
    if status == 0:
        load = getattr(library, f"rillet_{kind}_load")
        status = load(memory.ctypes.data, size.value, *given, message)
    if status != 0:
        raise PackingError(message.value.decode("utf-8", "replace"))
    return memory

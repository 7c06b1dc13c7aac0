"""The C library's text functions, as Python calls them."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

from rillet.runtime.engines.native.library import block, library_path

__all__ = ["NativeDecoder", "NativeStops", "NativeTokenizer", "NativeTokenizerError"]

_MESSAGE = 160
_SIZES = (
    "rillet_decode",
    "rillet_decode_size",
    "rillet_encode",
    "rillet_encode_scratch",
    "rillet_stops_flush",
    "rillet_stops_push",
    "rillet_stops_room",
    "rillet_stops_size",
    "rillet_unknown",
)


def _library() -> Any:
    library = ctypes.CDLL(str(library_path()))
    for name in _SIZES:
        getattr(library, name).restype = ctypes.c_size_t
    library.rillet_token.restype = ctypes.c_void_p
    library.rillet_stops_held.restype = ctypes.c_void_p
    return library


class NativeTokenizerError(Exception):
    """The library refuses a tokenizer."""


def _address(array: Any) -> Any:
    return ctypes.c_void_p(array.ctypes.data)


class NativeTokenizer:
    """A tokenizer that the C library has loaded."""

    def __init__(self, source: str | bytes) -> None:
        self.library = _library()
        data = source.encode() if isinstance(source, str) else source
        message, size = ctypes.create_string_buffer(_MESSAGE), ctypes.c_size_t()
        status = self.library.rillet_tokenizer_size(
            data, ctypes.c_size_t(len(data)), ctypes.byref(size), message
        )
        if status == 0:
            self._memory = block(size.value)
            self.address = _address(self._memory)
            status = self.library.rillet_tokenizer_load(
                self.address, size, data, ctypes.c_size_t(len(data)), message
            )
        if status:
            raise NativeTokenizerError(message.value.decode())
        self.vocab_size: int = self.library.rillet_tokenizer_vocabulary(self.address)
        self.reads_any_bytes = bool(self.library.rillet_tokenizer_reads_any_bytes(self.address))

    def encode(self, text: bytes) -> list[int]:
        """The tokens of a text."""
        length = ctypes.c_size_t(len(text))
        scratch = block(self.library.rillet_encode_scratch(self.address, text, length))
        tokens = np.zeros(max(len(text), 1), np.int32)
        count = self.library.rillet_encode(
            self.address, text, length, _address(tokens), _address(scratch)
        )
        return [int(token) for token in tokens[:count]]

    def unknown(self, text: bytes) -> list[bytes]:
        """Each character without a token, as often as it occurs."""
        found: list[bytes] = []
        at, size = 0, ctypes.c_size_t()
        while True:
            place = self.library.rillet_unknown(
                self.address,
                text,
                ctypes.c_size_t(len(text)),
                ctypes.c_size_t(at),
                ctypes.byref(size),
            )
            if place == len(text):
                return found
            at = place + size.value
            found.append(text[place:at])

    def token_bytes(self, token: int) -> bytes:
        """The bytes of a token."""
        size = ctypes.c_size_t()
        address = self.library.rillet_token(self.address, token, ctypes.byref(size))
        return ctypes.string_at(address, size.value)


class _Decoder(ctypes.Structure):
    """``rillet_decoder``."""

    _fields_ = (
        ("pending", ctypes.c_ubyte * 4),
        ("waiting", ctypes.c_int32),
        ("exact", ctypes.c_int32),
    )


class NativeDecoder:
    """Decodes token by token."""

    def __init__(self, tokenizer: NativeTokenizer, exact: bool) -> None:
        self._tokenizer, self._decoder = tokenizer, _Decoder(exact=exact)
        size = tokenizer.library.rillet_decode_size(tokenizer.address)
        self._text = ctypes.create_string_buffer(size)

    def push(self, token: int) -> bytes:
        """The text that a token completes."""
        count = self._tokenizer.library.rillet_decode(
            self._tokenizer.address, ctypes.byref(self._decoder), token, self._text
        )
        assert count <= len(self._text)
        return self._text.raw[:count]

    @property
    def pending(self) -> bytes:
        """The bytes that wait."""
        return bytes(self._decoder.pending[: self._decoder.waiting])


class NativeStops:
    """Searches for stop strings."""

    def __init__(self, strings: Sequence[str]) -> None:
        self._library = _library()
        self._strings = list(strings)
        array = (ctypes.c_char_p * max(len(strings), 1))(*(text.encode() for text in strings))
        count = ctypes.c_size_t(len(strings))
        self._memory = block(self._library.rillet_stops_size(array, count))
        self._library.rillet_stops_begin(_address(self._memory), array, count)

    def push(self, text: bytes) -> tuple[bytes, str | None]:
        """The text that can be shown, and the string that is complete."""
        room = self._library.rillet_stops_room(_address(self._memory), ctypes.c_size_t(len(text)))
        shown, stopped = ctypes.create_string_buffer(room), ctypes.c_int32()
        count = self._library.rillet_stops_push(
            _address(self._memory), text, ctypes.c_size_t(len(text)), shown, ctypes.byref(stopped)
        )
        complete = None if stopped.value < 0 else self._strings[stopped.value]
        return shown.raw[:count], complete

    @property
    def held(self) -> bytes:
        """What is held back."""
        size = ctypes.c_size_t()
        address = self._library.rillet_stops_held(_address(self._memory), ctypes.byref(size))
        return ctypes.string_at(address, size.value)

    def flush(self) -> bytes:
        """Release what is held back."""
        room = self._library.rillet_stops_room(_address(self._memory), ctypes.c_size_t(0))
        shown = ctypes.create_string_buffer(room)
        count = self._library.rillet_stops_flush(_address(self._memory), shown)
        return shown.raw[:count]

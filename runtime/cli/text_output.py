"""Text on standard output, as it comes, for a reader who may stall."""

from __future__ import annotations

import select
import sys
from typing import Any

from ..interrupt import Interrupt
from ..streams.text_stream import TextStream
from ..tokenizer import text_bytes
from .terminal import shown

__all__ = ["TextOutput"]

_READY = 512
"""Bytes that a pipe which is ready takes without waiting: POSIX's least ``PIPE_BUF``."""
_LONGEST = 4
"""Bytes of a character."""


class TextOutput:
    """Writes to standard output at once.

    Bytes go out as they are, but to a terminal only the characters that it has, and none that it
    would obey. A reader who stalls is waited for until a signal asks to stop.

    Args:
        any_bytes: Whether the model may write bytes that are no text.
        interrupt: The request to stop.
    """

    def __init__(self, any_bytes: bool, interrupt: Interrupt) -> None:
        self._any_bytes, self._interrupt = any_bytes, interrupt
        self._waiting = _stdout_poll()

    def write_stream(self, stream: TextStream, at_once: bool = True) -> None:
        """Write a text; what its reader did not get stays with the stream.

        Args:
            stream: The text.
            at_once: Write each piece as it comes.
        """
        for piece in stream.as_bytes() if at_once else [b"".join(stream.as_bytes())]:
            if rest := self.write(piece):
                stream.take_back(rest)

    def write(self, data: bytes) -> bytes:
        """Write; returns what the reader did not take before he was waited for in vain."""
        if self._any_bytes and not sys.stdout.isatty():
            sys.stdout.flush()
            for at in range(0, len(data), _READY):
                if not self._is_ready():
                    return data[at:]
                sys.stdout.buffer.write(data[at : at + _READY])
                sys.stdout.buffer.flush()
            return b""
        encoding, size = sys.stdout.encoding or "utf-8", _READY // _LONGEST
        text = data.decode("utf-8", "replace").encode(encoding, "replace").decode(encoding)
        for at in range(0, len(text), size):
            if not self._is_ready():
                return text_bytes(text[at:])
            sys.stdout.write(shown(text[at : at + size], sys.stdout))
            sys.stdout.flush()
        return b""

    def _is_ready(self) -> bool:
        """Wait for the reader; False if he is not ready and a signal asks to stop."""
        while self._waiting is not None:
            # It may come just before a poll, which then takes a while.
            stops = self._interrupt.requested
            if self._waiting.poll(0 if stops else 100):
                return True
            if stops:
                return False
        return True


def _stdout_poll() -> Any:
    """What waits for the reader of standard output; ``None`` where there is nothing to wait for."""
    try:
        handle = sys.stdout.fileno()
    except (OSError, ValueError):  # no file: a test's or an embedder's
        return None
    if not hasattr(select, "poll"):  # Windows
        return None
    waiting = select.poll()
    waiting.register(handle, select.POLLOUT)
    return waiting

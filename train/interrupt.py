"""Ctrl-C that waits for the end of a step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Interrupt", "interruptible"]


class Interrupt:
    """Whether the user has asked to stop."""

    asked = False


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Note the first Ctrl-C (or SIGTERM) instead of raising; the second raises as usual.

    A step that is half done cannot be resumed, so whoever runs steps looks at the
    :class:`Interrupt` between two of them. Outside the main thread signals are left alone.

    Yields:
        The note.
    """
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return

    def note(number: int, frame: FrameType | None) -> None:
        if interrupt.asked:
            raise KeyboardInterrupt
        interrupt.asked = True

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

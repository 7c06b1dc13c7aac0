"""Ctrl-C that waits for the end of a step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Interrupt", "interruptible"]


class Interrupt:
    """Whether the user has asked to stop.

    Args:
        then: Called when that happens, in the signal's handler.
    """

    def __init__(self, then: Callable[[], object] | None = None) -> None:
        self.asked = False
        self.by = 0
        """The signal's number."""
        self.then = then
        """To be replaced when something else is to be told."""

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Let the signal raise ``KeyboardInterrupt``: for waiting, with nothing half done."""
        before, self.then = self.then, _raise
        try:
            yield
        finally:
            self.then = before


@contextmanager
def interruptible(then: Callable[[], object] | None = None) -> Iterator[Interrupt]:
    """Note the first Ctrl-C (or SIGTERM) instead of raising; the second raises as usual.

    A step that is half done cannot be resumed, so whoever runs steps looks at the
    :class:`Interrupt` between two of them. Outside the main thread signals are left alone.

    Args:
        then: Called at the first signal, to end what runs.

    Yields:
        The note.
    """
    interrupt = Interrupt(then)
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return

    def note(number: int, frame: FrameType | None) -> None:
        if interrupt.asked:
            raise KeyboardInterrupt
        interrupt.asked, interrupt.by = True, number
        if interrupt.then is not None:
            interrupt.then()

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise() -> None:
    raise KeyboardInterrupt

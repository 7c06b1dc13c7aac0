"""Ctrl-C that takes effect between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Interrupt", "interruptible"]


class Interrupt:
    """A request to stop.

    Attributes:
        requested: Whether a signal has asked to stop.
        signal_number: The signal that did, such as ``SIGINT``; 0 before that.
        callback: Called from the signal handler, to stop whatever is running; may be replaced.
    """

    def __init__(self) -> None:
        self.requested = False
        self.signal_number = 0
        self.callback: Callable[[], object] | None = None

    def watch(self, cancel: Callable[[], object]) -> None:
        """Call this when a signal asks to stop; at once, if one has."""
        self.callback = cancel
        if self.requested:
            cancel()

    @contextmanager
    def raise_at_once(self) -> Iterator[None]:
        """Let the signal raise ``KeyboardInterrupt``: for waits that leave nothing half done.

        One that came just before raises here, rather than be waited through.
        """
        before, self.callback = self.callback, _raise
        try:
            if self.requested:
                raise KeyboardInterrupt
            yield
        finally:
            self.callback = before


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Record the first Ctrl-C (or SIGTERM) instead of raising; the second raises as usual.

    A half-finished step cannot be resumed, so the caller checks the :class:`Interrupt` between
    steps. Outside the main thread, signals keep their handlers.

    Yields:
        The request, not made yet.
    """
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return

    def record(number: int, frame: FrameType | None) -> None:
        if interrupt.requested:
            raise KeyboardInterrupt
        interrupt.requested, interrupt.signal_number = True, number
        if interrupt.callback is not None:
            interrupt.callback()

    before = {number: signal.signal(number, record) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise() -> None:
    raise KeyboardInterrupt

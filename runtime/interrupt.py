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

    Args:
        then: Called from the signal handler when the request arrives.

    Attributes:
        asked: Whether the user has asked to stop.
        by: The number of the signal that asked, such as ``SIGINT``.
        then: What to call; assign another callback when something else is running.
    """

    def __init__(self, then: Callable[[], object] | None = None) -> None:
        self.asked = False
        self.by = 0
        self.then = then

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Let the signal raise ``KeyboardInterrupt``: for waits that leave nothing half done."""
        before, self.then = self.then, _raise
        try:
            yield
        finally:
            self.then = before


@contextmanager
def interruptible(then: Callable[[], object] | None = None) -> Iterator[Interrupt]:
    """Record the first Ctrl-C (or SIGTERM) instead of raising; the second raises as usual.

    A half-finished step cannot be resumed, so the caller checks the :class:`Interrupt` between
    steps. Outside the main thread, signals keep their handlers.

    Args:
        then: Called on the first signal, to stop whatever is running.

    Yields:
        The request, which is not ``asked`` yet.
    """
    interrupt = Interrupt(then)
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return

    def record(number: int, frame: FrameType | None) -> None:
        if interrupt.asked:
            raise KeyboardInterrupt
        interrupt.asked, interrupt.by = True, number
        if interrupt.then is not None:
            interrupt.then()

    before = {number: signal.signal(number, record) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise() -> None:
    raise KeyboardInterrupt

"""Handle Ctrl-C between two steps instead of in the middle of one."""

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
        then: Called at the first signal, inside the signal handler.
    """

    def __init__(self, then: Callable[[], object] | None = None) -> None:
        self.asked = False
        self.by = 0
        """The signal's number."""
        self.then = then
        """Called at the first signal; replace it when something else should be stopped."""

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Raise ``KeyboardInterrupt`` at the signal, as is safe while waiting for input."""
        before, self.then = self.then, _raise
        try:
            yield
        finally:
            self.then = before


@contextmanager
def interruptible(then: Callable[[], object] | None = None) -> Iterator[Interrupt]:
    """Record the first Ctrl-C or SIGTERM instead of raising; a second one raises.

    A step that is interrupted half-way cannot be resumed, so a loop of steps checks the
    :class:`Interrupt` between two of them. Outside the main thread, signals are left alone.

    Args:
        then: Called at the first signal, to end what is running.

    Yields:
        The record.
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

"""A thread that does long work in turns: a piece of each task after the other.

Prompts are read here, and never by the thread that writes, so a long prompt holds neither those who
are being written for nor those with a short one.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

__all__ = ["Turns"]

T = TypeVar("T")


@dataclass(eq=False)
class _Task:
    work: Generator[None, None, Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    is_cancelled: bool = False


class Turns:
    """Runs generators, each up to its next ``yield``, in turns.

    Args:
        name: The thread's name.
    """

    def __init__(self, name: str) -> None:
        self._tasks: deque[_Task] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def run(self, work: Generator[None, None, T]) -> T:
        """Do some work to its end, and return what it returns.

        If the caller is cancelled, the work is closed at its next ``yield``, and only then does the
        cancellation go on: whatever the work used is free again.
        """
        loop = asyncio.get_running_loop()
        task = _Task(work, loop, loop.create_future())
        with self._changed:
            self._tasks.append(task)
            self._changed.notify()
        try:
            result: T = await asyncio.shield(task.future)
        except asyncio.CancelledError:
            task.is_cancelled = True
            await asyncio.wait([task.future])
            if not task.future.cancelled():
                task.future.exception()  # has been looked at
            raise
        return result

    async def call(self, function: Callable[[], T]) -> T:
        """Do some work that is one piece."""

        def once() -> Generator[None, None, T]:
            yield from ()
            return function()

        return await self.run(once())

    def close(self) -> None:
        """End the thread once all work is done."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._tasks and not self._is_closed:
                    self._changed.wait()
                if not self._tasks:
                    return
                task = self._tasks.popleft()
            if not self._advance(task):
                with self._changed:
                    self._tasks.append(task)

    def _advance(self, task: _Task) -> bool:
        """Do one piece; returns whether that was the last."""
        try:
            if task.is_cancelled:
                task.work.close()
                self._tell(task, None, None)
                return True
            next(task.work)
        except StopIteration as end:
            self._tell(task, end.value, None)
        except BaseException as error:
            self._tell(task, None, error)
        else:
            return False
        return True

    def _tell(self, task: _Task, value: Any, error: BaseException | None) -> None:
        def tell() -> None:
            if error is None:
                task.future.set_result(value)
            else:
                task.future.set_exception(error)

        task.loop.call_soon_threadsafe(tell)

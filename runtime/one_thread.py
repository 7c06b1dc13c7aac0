"""A guard against two threads in one stream at once."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, TypeVar, cast

from .errors import UsageError

__all__ = ["OneThread", "alone"]


class OneThread:
    """Lets one thread in at a time, as often as it likes, and refuses another.

    It refuses and does not wait: a stream that two threads use has no order in which its text
    could be meant. Entering and leaving takes about half a microsecond.

    An interrupt (Ctrl-C) may strike between any two of its lines, so who is inside is written down
    by one call that is atomic. A lock and, beside it, the name of its holder could be interrupted
    in between, and a thread would be locked out of its own stream.

    Args:
        what: What is guarded, for the message.
    """

    __slots__ = ("_depth", "_inside", "_what")

    def __init__(self, what: str) -> None:
        self._what = what
        self._inside: dict[str, int] = {}
        self._depth = 0

    def __enter__(self) -> None:
        me = threading.get_ident()
        if self._inside.setdefault("thread", me) != me:
            raise UsageError(
                f"the {self._what} is being used by another thread; give each thread its own, "
                "or take turns"
            )
        self._depth += 1

    def __exit__(self, *exception: Any) -> None:
        self._depth -= 1
        if self._depth <= 0:
            self._depth = 0
            self._inside.clear()


M = TypeVar("M", bound=Callable[..., Any])


def alone(method: M) -> M:
    """A method that runs under its object's guard, ``_alone``."""

    @functools.wraps(method)
    def guarded(self: Any, *args: Any, **kwargs: Any) -> Any:
        with self._alone:
            return method(self, *args, **kwargs)

    return cast(M, guarded)

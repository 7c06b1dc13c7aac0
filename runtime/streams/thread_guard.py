"""Refuse a second thread inside a stream."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, TypeVar, cast

from ..errors import UsageError

__all__ = ["ThreadGuard", "exclusive"]

M = TypeVar("M", bound=Callable[..., Any])


class ThreadGuard:
    """Who is inside an object that :func:`exclusive` protects.

    Args:
        what: What it protects, for the error message.
    """

    __slots__ = ("depth", "inside", "what")

    def __init__(self, what: str) -> None:
        self.what = what
        self.inside: dict[str, int] = {}
        self.depth = 0

    def is_mine(self) -> bool:
        """Whether this thread is inside."""
        return self.inside.get("thread") == threading.get_ident()

    def refusal(self) -> UsageError:
        """The error for a thread that came second."""
        return UsageError(
            f"the {self.what} is being used by another thread; give each thread its own, "
            "or take turns"
        )


def exclusive(method: M) -> M:
    """Let one thread at a time into a method, recursively; refuse any other.

    The object has a :class:`ThreadGuard` called ``guard``.

    It refuses rather than waits: the text of a stream that two threads share would depend on
    which came first. The check takes about half a microsecond.

    Ctrl-C may strike whenever Python returns from a call. The entry is therefore recorded by one
    atomic call, with no call between it and the counter, nor between the end of the method and
    the counter: after any interrupt, the next call by the same thread finds a consistent guard.
    """

    @functools.wraps(method)
    def guarded(self: Any, *args: Any, **kwargs: Any) -> Any:
        guard: ThreadGuard = self.guard
        me = threading.get_ident()
        if guard.inside.setdefault("thread", me) != me:
            raise guard.refusal()
        guard.depth += 1
        try:
            return method(self, *args, **kwargs)
        finally:
            guard.depth -= 1
            if not guard.depth:
                guard.inside.clear()

    return cast(M, guarded)

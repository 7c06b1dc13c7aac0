"""A guard against two threads in one stream at once."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, TypeVar, cast

from ..errors import UsageError

__all__ = ["OneThread", "alone"]


class OneThread:
    """Who is inside an object, for :func:`alone`.

    Args:
        what: What is guarded, for the message.
    """

    __slots__ = ("depth", "inside", "what")

    def __init__(self, what: str) -> None:
        self.what = what
        self.inside: dict[str, int] = {}
        self.depth = 0


M = TypeVar("M", bound=Callable[..., Any])


def alone(method: M) -> M:
    """A method that one thread at a time may be in, as often as it likes; another is refused.

    It refuses and does not wait: a stream that two threads use has no order in which its text
    could be meant. Its object has a :class:`OneThread` called ``_alone``. It takes about half a
    microsecond.

    Ctrl-C may strike wherever Python returns from a call. So who is inside is written down by one
    call that is atomic, and nothing is called between that and the count, nor between the method's
    end and the count: whatever is interrupted, the next call by the same thread puts it right.
    """

    @functools.wraps(method)
    def guarded(self: Any, *args: Any, **kwargs: Any) -> Any:
        guard: OneThread = self._alone
        me = threading.get_ident()
        if guard.inside.setdefault("thread", me) != me:
            raise UsageError(
                f"the {guard.what} is being used by another thread; give each thread its own, "
                "or take turns"
            )
        guard.depth += 1
        try:
            return method(self, *args, **kwargs)
        finally:
            guard.depth -= 1
            if not guard.depth:
                guard.inside.clear()

    return cast(M, guarded)

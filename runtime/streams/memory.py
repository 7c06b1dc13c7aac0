"""Reading a text into a stream's memory alone, and emptying it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..errors import UsageError

if TYPE_CHECKING:
    from .session import Session

__all__ = ["forget_all", "learn_text"]


def learn_text(session: Session, pieces: Iterable[str]) -> int:
    """Read a text as a stream of its own, and keep of it what the memory holds.

    Args:
        session: The stream; it is where it was when this fails.
        pieces: The text, in pieces.

    Returns:
        The number of tokens read.

    Raises:
        UsageError: The stream has no memory.
    """
    names = _memory_names(session)
    if not names or not session.memory:
        what = "model was exported without one" if not names else "session has memory=False"
        raise UsageError(f"the stream cannot learn: it has no memory, for the {what}")
    kept = {*names, "position"}
    context, mode = session._copy(), session.learn_mode
    state = session._state
    before = state.read()
    try:
        zeros = {row.name: row.zeros(1) for row in session.model.bundle.state}
        state.write({name: before[name] if name in kept else zeros[name] for name in before})
        session.learn_mode = "read"
        count = session._feed(pieces)
        after = state.read()
    except BaseException:
        session._go_back(context)
        raise
    finally:
        session.learn_mode = mode
    session._go_back(context)
    state.write({name: after[name] if name in kept else before[name] for name in before})
    return count


def forget_all(session: Session) -> None:
    """Empty the memory of a stream, which goes on where it is."""
    values = session._state.read()
    for name in _memory_names(session):
        values[name][...] = 0
    session._state.write(values)


def _memory_names(session: Session) -> list[str]:
    return [row.name for row in session.model.bundle.state if row.name.startswith("memory_")]

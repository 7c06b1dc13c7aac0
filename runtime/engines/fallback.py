"""An engine that switches to the next one when a step fails, from the state before that step."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import EngineError
from .base import Engine, EngineState, Learn, TokenGenerator, Values
from .checks import check_tokens, own_state

__all__ = ["FallbackEngine", "FallbackState"]

log = logging.getLogger("rillet")

_JOURNAL = 256
"""Tokens that a journal holds before the row is copied to the host again."""


@dataclass
class Journal:
    """How to rebuild one row: a copy in the host's memory, and the tokens read since.

    Attributes:
        base: State tensors of one row; ``None`` for zeros.
        before: What the step before that copy read.
        tokens: Tokens read since, each with its ``learn``.
    """

    base: Values | None = None
    before: Values = field(default_factory=dict)
    tokens: list[tuple[int, float]] = field(default_factory=list)

    def copy(self) -> Journal:
        """Return an independent copy."""
        return Journal(self.base, self.before, list(self.tokens))


class FallbackEngine:
    """Runs on one engine until a step fails there, then on the next.

    A device that is lost takes the state in its memory with it. So the host keeps a copy of each
    row, renewed every 256 tokens, and the tokens since; the next engine reads those again. If the
    failed engine's state can still be read, it is moved as it is.

    Args:
        first: The engine to begin with.
        others: The engines to switch to, in order: a name, and a function that opens it.
    """

    def __init__(self, first: Engine, others: Sequence[tuple[str, Callable[[], Engine]]]) -> None:
        self._engines = [first]
        self._others = list(others)
        self._lock = threading.Lock()
        self.bundle = first.bundle
        self.state_table = first.state_table
        self.vocab_size = first.vocab_size
        self.last_logits = first.last_logits
        self.independent_rows = first.independent_rows

    @property
    def current(self) -> Engine:
        """The engine that new streams begin on."""
        return self._engines[-1]

    @property
    def provider(self) -> str:
        """The execution provider that runs the graphs now."""
        return self.current.provider

    @property
    def version(self) -> str:
        """Name and version of the library that computes now."""
        return self.current.version

    @property
    def threads(self) -> int:
        """Threads that one call may use."""
        return self.current.threads

    def zero_state(self, batch: int = 1) -> FallbackState:
        """Return the state at the start of a stream."""
        return FallbackState(self.current, batch)

    def prefill(
        self, tokens: npt.NDArray[Any], state: EngineState, learn: Learn = 1.0, last: bool = False
    ) -> npt.NDArray[Any]:
        """Read tokens ``[B, T]``; see :meth:`.Engine.prefill`."""
        check_tokens(tokens, self.vocab_size)
        own = own_state(state, FallbackState)
        logits = self._try(own, lambda engine: engine.prefill(tokens, own.inner, learn, last))
        own.note(tokens, learn)
        return logits

    def step(
        self, tokens: npt.NDArray[Any], state: EngineState, learn: Learn = 1.0
    ) -> npt.NDArray[Any]:
        """Read one token per row; see :meth:`.Engine.step`."""
        check_tokens(tokens, self.vocab_size)
        own = own_state(state, FallbackState)
        logits = self._try(own, lambda engine: engine.step(tokens, own.inner, learn))
        own.note(tokens[:, None], learn)
        return logits

    def generator(self) -> TokenGenerator | None:
        """Return ``None``: the tokens of a call that fails could not be read again."""
        return None

    def close(self) -> None:
        """Release the graphs; the next call reloads them."""
        for engine in self._engines:
            engine.close()

    def _try(
        self, state: FallbackState, call: Callable[[Engine], npt.NDArray[Any]]
    ) -> npt.NDArray[Any]:
        while True:
            try:
                return call(state.engine)
            except EngineError as error:
                state.move(self._next(state.engine, error))

    def _next(self, failed: Engine, error: EngineError) -> Engine:
        """Return the engine after one that failed, opening it if it is new.

        Raises:
            EngineError: There is none that can be opened.
        """
        with self._lock:
            place = next(at for at, engine in enumerate(self._engines) if engine is failed)
            while place + 1 == len(self._engines):
                if not self._others:
                    raise error
                name, open_next = self._others.pop(0)
                try:
                    opened = open_next()
                except EngineError as refused:
                    log.error("%r cannot take over: %s", name, refused)
                    continue
                message = f"{failed.version} failed: {error}; the stream continues on {name!r}"
                log.error(message)
                warnings.warn(message, RuntimeWarning, stacklevel=6)
                self._engines.append(opened)
            return self._engines[place + 1]


class FallbackState:
    """The state of a stream or a batch, where its engine keeps it, and how to rebuild it.

    Args:
        engine: The engine that steps it.
        batch: Number of rows.
    """

    def __init__(self, engine: Engine, batch: int) -> None:
        self.engine = engine
        self.inner = engine.zero_state(batch)
        self._undo_moved = self.inner.undo_point()
        self.journals = [Journal() for _ in range(batch)]

    @property
    def batch(self) -> int:
        """Number of rows."""
        return self.inner.batch

    def read(self) -> Values:
        """Copy every state tensor to the host."""
        return self.inner.read()

    def write(self, values: Values) -> None:
        """Replace every state tensor."""
        self.inner.write(values)
        self._renew()

    def read_before(self) -> Values:
        """Copy what the last step read; see :meth:`.EngineState.read_before`."""
        return self.inner.read_before()

    def write_before(self, values: Values) -> None:
        """Replace what the last step read; see :meth:`.EngineState.write_before`."""
        self.inner.write_before(values)
        self._renew()

    def undo_point(self) -> Callable[[], None]:
        """Return a function that undoes the next step; see :meth:`.EngineState.undo_point`."""
        inner, undo_inner = self.inner, self.inner.undo_point()
        lengths = [len(journal.tokens) for journal in self.journals]

        def undo() -> None:
            (undo_inner if self.inner is inner else self._undo_moved)()
            if any(len(one.tokens) < old for one, old in zip(self.journals, lengths, strict=True)):
                self._renew()  # a copy was taken after the step
            for journal, length in zip(self.journals, lengths, strict=True):
                del journal.tokens[length:]

        return undo

    def resize(self, batch: int) -> None:
        """Change the number of rows; new rows start at zeros."""
        self.inner.resize(batch)
        del self.journals[batch:]
        self.journals += [Journal() for _ in range(batch - len(self.journals))]

    def copy_row(self, row: int, source: EngineState, source_row: int) -> None:
        """Replace one row; see :meth:`.EngineState.copy_row`."""
        source = own_state(source, FallbackState)
        if source.engine is self.engine:
            self.inner.copy_row(row, source.inner, source_row)
        else:
            values, others = self.read(), source.read()
            before, others_before = self.read_before(), source.read_before()
            for ours, theirs in ((values, others), (before, others_before)):
                for name, value in ours.items():
                    value[row] = theirs[name][source_row]
            self.inner.write(values)
            self.inner.write_before(before)
        self.journals[row] = source.journals[source_row].copy()

    def note(self, tokens: npt.NDArray[Any], learn: Learn) -> None:
        """Add tokens ``[B, T]`` that the engine has read to the journals."""
        learns = np.broadcast_to(np.asarray(learn, np.float32), (len(tokens),)).tolist()
        for journal, row, weight in zip(self.journals, tokens.tolist(), learns, strict=True):
            journal.tokens += [(token, weight) for token in row]
        if any(len(journal.tokens) > _JOURNAL for journal in self.journals):
            try:
                self._renew()
            except Exception as error:  # this step succeeded; the next one will report the fault
                log.warning("the state cannot be copied to the host: %s", error)

    def move(self, engine: Engine) -> None:
        """Switch to another engine, with the state before the failed step."""
        try:
            values, before = self.inner.read(), self.inner.read_before()
        except Exception as error:  # a lost device raises whatever its library raises
            log.warning("%s lost the state (%s); rebuilding it", self.engine.version, error)
            values, before = self._rebuild(engine)
        inner = engine.zero_state(self.batch)
        inner.write(values)
        inner.write_before(before)
        self._undo_moved = inner.undo_point()
        self.engine, self.inner = engine, inner

    def _rebuild(self, engine: Engine) -> tuple[Values, Values]:
        rows, rows_before = [], []
        for journal in self.journals:
            state = engine.zero_state(1)
            if journal.base is not None:
                state.write(journal.base)
                state.write_before(journal.before)
            for token, learn in journal.tokens:
                engine.step(np.asarray([token]), state, learn)
            rows.append(state.read())
            rows_before.append(state.read_before())
        empty = engine.zero_state(0)
        return _stacked(rows, empty.read()), _stacked(rows_before, empty.read_before())

    def _renew(self) -> None:
        """Start every journal over from a copy of the state."""
        values, before = self.inner.read(), self.inner.read_before()
        for row, journal in enumerate(self.journals):
            journal.base, journal.before = _row(values, row), _row(before, row)
            journal.tokens.clear()


def _row(values: Values, row: int) -> Values:
    return {name: value[row : row + 1].copy() for name, value in values.items()}


def _stacked(rows: list[Values], empty: Values) -> Values:
    return {name: np.concatenate([empty[name], *(row[name] for row in rows)]) for name in empty}

"""An engine that goes over to the next one when a step fails, from the state before that step."""

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
from .base import Engine, EngineState, Learn
from .device_state import check_tokens

__all__ = ["FallbackEngine", "FallbackState"]

log = logging.getLogger("rillet")

_JOURNAL = 256
"""Tokens that are kept since a row was last copied to the host."""

Values = dict[str, npt.NDArray[Any]]


@dataclass
class _Journal:
    """How to make one row anew: a copy in the host's memory, and what was read since."""

    base: Values | None = None
    """State tensors of one row; ``None``: zeros."""
    read: list[tuple[int, float]] = field(default_factory=list)

    def copy(self) -> _Journal:
        return _Journal(self.base, list(self.read))


class FallbackEngine:
    """Runs on one engine until a step fails there, and then on the next.

    A device that is lost takes the state in its memory along. So the host keeps a copy of each
    row, taken every 256 tokens, and the tokens since: the next engine reads those again. Where the
    old engine can still be read, its state is taken as it is.

    Args:
        first: The engine to begin with.
        others: What opens each of the engines to go over to, in order, with its name.
    """

    def __init__(
        self, first: Engine[Any], others: Sequence[tuple[str, Callable[[], Engine[Any]]]]
    ) -> None:
        self._engines = [first]
        self._others = list(others)
        self._lock = threading.Lock()
        self.bundle = first.bundle  # type: ignore[attr-defined]
        self.state = self.bundle.state
        self.vocab_size: int = self.bundle.vocab_size
        self.last_logits: bool = self.bundle.last_logits

    @property
    def current(self) -> Engine[Any]:
        """The engine that new streams begin on."""
        return self._engines[-1]

    @property
    def provider(self) -> str:
        """The execution provider that runs the graphs now."""
        return self.current.provider

    @property
    def version(self) -> str:
        """The engine's name and version."""
        return self.current.version

    @property
    def threads(self) -> int:
        """Threads that one call may use."""
        return self.current.threads

    def zero_state(self, batch: int = 1) -> FallbackState:
        """The start of a stream."""
        return FallbackState(self.current, batch)

    def prefill(
        self, tokens: npt.NDArray[Any], state: FallbackState, learn: Learn = 1.0, last: bool = False
    ) -> npt.NDArray[Any]:
        """Read tokens ``[B, T]``; see :meth:`.Engine.prefill`."""
        check_tokens(tokens, self.vocab_size)
        logits: npt.NDArray[Any] = self._try(
            state, lambda engine: engine.prefill(tokens, state.inner, learn, last)
        )
        state.note(tokens, learn)
        return logits

    def step(
        self, tokens: npt.NDArray[Any], state: FallbackState, learn: Learn = 1.0
    ) -> npt.NDArray[Any]:
        """Read one token a row; see :meth:`.Engine.step`."""
        check_tokens(tokens, self.vocab_size)
        logits: npt.NDArray[Any] = self._try(
            state, lambda engine: engine.step(tokens, state.inner, learn)
        )
        state.note(tokens[:, None], learn)
        return logits

    def close(self) -> None:
        """Let go of the graphs; a call after that loads them anew."""
        for engine in self._engines:
            engine.close()

    def _try(self, state: FallbackState, call: Callable[[Engine[Any]], Any]) -> Any:
        while True:
            try:
                return call(state.engine)
            except EngineError as error:
                state.move(self._next(state.engine, error))

    def _next(self, failed: Engine[Any], error: EngineError) -> Engine[Any]:
        """The engine after one that failed; opened when it is first needed.

        Raises:
            EngineError: There is none.
        """
        with self._lock:
            place = next(at for at, engine in enumerate(self._engines) if engine is failed)
            while place + 1 == len(self._engines):
                if not self._others:
                    raise error
                name, opened = self._others.pop(0)
                message = f"{failed.version} failed: {error}; the stream goes on with {name!r}"
                log.error(message)
                warnings.warn(message, RuntimeWarning, stacklevel=6)
                self._engines.append(opened())
            return self._engines[place + 1]


class FallbackState:
    """The state of a stream or a batch, where its engine keeps it, and how to make it anew.

    Args:
        engine: The engine that steps it.
        batch: Number of rows.
    """

    def __init__(self, engine: Engine[Any], batch: int) -> None:
        self.engine = engine
        self.inner: EngineState = engine.zero_state(batch)
        self._journals = [_Journal() for _ in range(batch)]

    @property
    def batch(self) -> int:
        """Number of rows."""
        return self.inner.batch

    def read(self) -> Values:
        """A copy of every state tensor, by name."""
        return self.inner.read()

    def write(self, values: Values) -> None:
        """Replace every state tensor."""
        self.inner.write(values)
        self._keep(values)

    def resize(self, batch: int) -> None:
        """Change the number of rows; those that are added start at zeros."""
        self.inner.resize(batch)
        del self._journals[batch:]
        self._journals += [_Journal() for _ in range(batch - len(self._journals))]

    def copy_row(self, row: int, source: FallbackState, source_row: int) -> None:
        """Copy one row of a state over one of this state."""
        if source.engine is self.engine:
            self.inner.copy_row(row, source.inner, source_row)
        else:
            theirs, values = source.read(), self.read()
            for name, value in values.items():
                value[row] = theirs[name][source_row]
            self.inner.write(values)
        self._journals[row] = source._journals[source_row].copy()

    def note(self, tokens: npt.NDArray[Any], learn: Learn) -> None:
        """Remember what was read, ``[B, T]``."""
        learns = np.broadcast_to(np.asarray(learn, np.float32), (len(tokens),)).tolist()
        for journal, row, worth in zip(self._journals, tokens.tolist(), learns, strict=True):
            journal.read += [(token, worth) for token in row]
        if any(len(journal.read) > _JOURNAL for journal in self._journals):
            try:
                self._keep(self.inner.read())
            except Exception as error:  # the step itself went well: the next one will tell
                log.warning("no copy of the state: %s", error)

    def move(self, engine: Engine[Any]) -> None:
        """Go over to another engine, with the state that there was before the failed step."""
        try:
            values = self.inner.read()
        except Exception as error:  # the device is lost: every engine has its own kind
            log.warning("the state is lost with %s (%s) and read anew", self.engine.version, error)
            values = self._replayed(engine)
        inner: EngineState = engine.zero_state(self.batch)
        inner.write(values)
        self.engine, self.inner = engine, inner

    def _replayed(self, engine: Engine[Any]) -> Values:
        rows = []
        for journal in self._journals:
            state = engine.zero_state(1)
            if journal.base is not None:
                state.write(journal.base)
            for token, learn in journal.read:
                engine.step(np.asarray([token]), state, learn)
            rows.append(state.read())
        names = engine.zero_state(1).read()
        return {name: np.concatenate([row[name] for row in rows]) for name in names}

    def _keep(self, values: Values) -> None:
        for row, journal in enumerate(self._journals):
            journal.base = {name: value[row : row + 1].copy() for name, value in values.items()}
            journal.read.clear()

"""What every inference engine offers: the model's one function, and streams' state."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import numpy.typing as npt

__all__ = ["Engine", "EngineState", "Learn"]

Learn = float | npt.NDArray[Any]
"""1 to store what is read in the memory, 0 not to; one for all rows, or one for each, ``[B]``."""


class EngineState(Protocol):
    """The state of one stream, or of a batch of them, where the engine keeps it."""

    @property
    def batch(self) -> int:
        """Number of rows."""
        ...

    def read(self) -> dict[str, npt.NDArray[Any]]:
        """A copy of every state tensor, by name."""
        ...

    def write(self, values: dict[str, npt.NDArray[Any]]) -> None:
        """Replace every state tensor."""
        ...

    def resize(self, batch: int) -> None:
        """Change the number of rows; rows that are added start at zeros.

        Amortised O(1) for each row that is added or dropped at the end.
        """
        ...

    def copy_row(self, row: int, source: Any, source_row: int) -> None:
        """Copy one row of a state of the same engine over one of this state."""
        ...


S = TypeVar("S", bound=EngineState)


class Engine(Protocol[S]):
    """Runs the graphs of one bundle. Safe to share between threads."""

    @property
    def provider(self) -> str:
        """The execution provider that runs the graphs."""
        ...

    @property
    def version(self) -> str:
        """The engine's name and version."""
        ...

    @property
    def last_logits(self) -> bool:
        """Whether a call of the prefill graph predicts only after its last token."""
        ...

    @property
    def threads(self) -> int:
        """Threads that one call may use."""
        ...

    def zero_state(self, batch: int = 1) -> S:
        """The start of a stream."""
        ...

    def prefill(
        self, tokens: npt.NDArray[Any], state: S, learn: Learn = 1.0, last: bool = False
    ) -> npt.NDArray[Any]:
        """Read tokens and advance the state.

        Args:
            tokens: ``[B, T]`` of int64, T at least 1.
            state: Advanced in place.
            learn: 1 to store what is read in the memory, 0 not to.
            last: Keep only the logits after the last token: the memory that a call takes
                then does not depend on T.

        Returns:
            Logits after each token, ``[B, T, V]``, or after the last, ``[B, 1, V]``.
        """
        ...

    def step(self, tokens: npt.NDArray[Any], state: S, learn: Learn = 1.0) -> npt.NDArray[Any]:
        """Read one token a row and advance the state.

        Args:
            tokens: ``[B]`` of int64.
            state: Advanced in place.
            learn: 1 to store what is read in the memory, 0 not to.

        Returns:
            Logits ``[B, V]``; the next step of the same state overwrites them.
        """
        ...

    def close(self) -> None:
        """Let go of the graphs; a call after that loads them anew."""
        ...

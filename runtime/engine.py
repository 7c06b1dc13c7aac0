"""What every inference engine offers: the model's one function, and streams' state."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import numpy.typing as npt

__all__ = ["Engine", "EngineState"]


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


S = TypeVar("S", bound=EngineState)


class Engine(Protocol[S]):
    """Runs the graphs of one bundle. Safe to share between threads."""

    @property
    def provider(self) -> str:
        """The execution provider that runs the graphs."""
        ...

    def zero_state(self, batch: int = 1) -> S:
        """The start of a stream."""
        ...

    def prefill(self, tokens: npt.NDArray[Any], state: S, learn: float = 1.0) -> npt.NDArray[Any]:
        """Read tokens and advance the state.

        Args:
            tokens: ``[B, T]`` of int64, T at least 1.
            state: Advanced in place.
            learn: 1 to store what is read in the memory, 0 not to.

        Returns:
            Logits after each token, ``[B, T, V]``.
        """
        ...

    def step(self, tokens: npt.NDArray[Any], state: S, learn: float = 1.0) -> npt.NDArray[Any]:
        """Read one token a row and advance the state.

        Args:
            tokens: ``[B]`` of int64.
            state: Advanced in place.
            learn: 1 to store what is read in the memory, 0 not to.

        Returns:
            Logits ``[B, V]``; the next step of the same state overwrites them.
        """
        ...

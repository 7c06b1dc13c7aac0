"""The protocol of an inference engine: what the library asks of whatever runs a bundle.

An engine computes one function, ``(tokens, state) -> (logits, state')``, and holds the state of
streams where it computes. Everything above this folder knows an engine by :class:`Engine` and
:class:`EngineState` alone.

To add an engine, write a folder beside ``ort`` and ``tensorrt``, add its name to
:data:`Provider`, and an entry to the table of openers in ``select.py``. The folder holds a class
that satisfies :class:`Engine`, by structure and not by inheritance. It must keep these promises:

- A step that fails leaves the stream where it was, so it can be repeated, here or elsewhere.
- A token that does not exist, logits that are not finite, and a state of another engine are
  refused with an :class:`.EngineError`; ``checks.py`` does this.
- Any way of cutting a text into calls gives the same logits and state, to 1e-5 in float32.
- Threads may share an engine; one thread at a time uses a state.

An engine that computes in a device's memory can use :class:`.DeviceState` for its states.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, Protocol, get_args, runtime_checkable

import numpy.typing as npt

from ..bundle import Bundle
from ..state_table import StateTensor

__all__ = [
    "EXPERIMENTAL",
    "PROVIDERS",
    "PROVIDER_CHOICES",
    "Drafter",
    "Drawing",
    "Engine",
    "EngineState",
    "Learn",
    "Provider",
    "ProviderChoice",
    "RowWriter",
    "TokenGenerator",
    "Values",
]

Provider = Literal["native", "cpu", "cuda", "tensorrt"]
"""What users call the ways to run a bundle."""

ProviderChoice = Literal["auto", "native", "cpu", "cuda", "tensorrt"]
"""A provider, or ``auto`` for the best one that works."""

EXPERIMENTAL: tuple[Provider, ...] = ("cuda", "tensorrt")
"""Providers that no test has run on a GPU yet."""

PROVIDERS: tuple[Provider, ...] = get_args(Provider)
PROVIDER_CHOICES: tuple[ProviderChoice, ...] = get_args(ProviderChoice)

Learn = float | npt.NDArray[Any]
"""1 to store in the memory what is read, 0 not to; one for all rows, or one for each, ``[B]``.

Online weights follow what is read at 1, and not below: 0.5 only stores."""

Values = dict[str, npt.NDArray[Any]]
"""State tensors by name, batch first."""


class EngineState(Protocol):
    """The state of one stream, or of a batch of them, where the engine keeps it."""

    @property
    def batch(self) -> int:
        """Number of rows."""
        ...

    def read(self) -> Values:
        """Copy every state tensor to the host."""
        ...

    def write(self, values: Values) -> None:
        """Replace every state tensor.

        Raises:
            EngineError: A tensor is missing or has another shape or type.
        """
        ...

    def read_before(self) -> Values:
        """Copy what the last step read, to the host: every tensor but the memory's.

        Valid after a step, and after an undone step; not after :meth:`Engine.prefill`.
        """
        ...

    def write_before(self, values: Values) -> None:
        """Replace what the last step read.

        Raises:
            EngineError: A tensor is missing or has another shape or type.
        """
        ...

    def undo_point(self) -> Callable[[], None]:
        """Return a function that undoes at most one step after this moment; cheap.

        It undoes a step that an interrupt cuts off, wherever that strikes. The memory entry that
        such a step stored stays until the next step overwrites it, before anything reads it.
        """
        ...

    def resize(self, batch: int) -> None:
        """Change the number of rows; new rows start at zeros.

        Amortised O(1) for each row that is added or dropped at the end.
        """
        ...

    def copy_row(self, row: int, source: EngineState, source_row: int) -> None:
        """Replace one row, and what its last step read, by a row of another state or of this one.

        Raises:
            EngineError: ``source`` is the state of another engine.
        """
        ...


class Drawing(NamedTuple):
    """How tokens are drawn from logits, as in :class:`.SamplingParams`.

    Attributes:
        temperature: Divides the logits; 0 takes the likeliest token.
        top_k: Keep the k likeliest tokens; 0 keeps all.
        top_p: Keep the likeliest tokens that reach this probability; 1 keeps all.
        min_p: Keep tokens at least this fraction as likely as the likeliest; 0 keeps all.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0


class TokenGenerator(Protocol):
    """Draws and reads many tokens in one call of the engine."""

    @property
    def knows_min_p(self) -> bool:
        """Whether :meth:`generate` takes ``min_p``."""
        ...

    def generate(
        self,
        state: EngineState,
        logits: npt.NDArray[Any],
        uniforms: npt.NDArray[Any],
        how: Drawing,
        *,
        end_token: int = -1,
        learn: float = 0.0,
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Draw tokens and read them.

        Given the same uniform numbers, the tokens are those of :class:`rillet.runtime.Sampler`
        with the same parameters.

        Args:
            state: A state of the generator's engine; advanced in place.
            logits: Logits after the last token read, ``[B, V]``.
            uniforms: A number in [0, 1) for each token, ``[B, K]``.
            how: How tokens are drawn.
            end_token: The call ends after the first step in which a row draws it; -1 for none.
            learn: 1 to store the drawn tokens in the memory, 0 not to.

        Returns:
            Tokens ``[B, k]``, k at most K, and the logits after the last, ``[B, V]``.

        Raises:
            EngineError: The engine failed; the stream is where it was.
        """
        ...


@runtime_checkable
class Drafter(TokenGenerator, Protocol):
    """Draws tokens ahead of their reader: those that single steps give, to the bit."""

    def draft(
        self,
        state: EngineState,
        source: EngineState,
        logits: npt.NDArray[Any],
        uniforms: npt.NDArray[Any],
        how: Drawing,
        learn: float,
    ) -> tuple[list[int], list[float], npt.NDArray[Any]]:
        """Copy a stream, then draw tokens there and read them.

        Args:
            state: A state of one row; it becomes that of the stream after the tokens, or is of no
                use if the engine fails.
            source: The stream's state; it stays as it is.
            logits: Its log-probabilities, ``[V]``.
            uniforms: A number in [0, 1) for each token, ``[K]``.
            how: How tokens are drawn.
            learn: 1 to store the drawn tokens in the memory, 0 not to.

        Returns:
            Tokens, the log-probability of each, and those of the next token, ``[V]``, which the
            next step of ``state`` may overwrite.

        Raises:
            EngineError: The engine failed.
        """
        ...


@runtime_checkable
class RowWriter(TokenGenerator, Protocol):
    """Draws tokens for many streams in one call, each stream in its own state."""

    def write_rows(
        self,
        states: Sequence[EngineState],
        logits: npt.NDArray[Any],
        uniforms: npt.NDArray[Any],
        how: Drawing,
        learn: npt.NDArray[Any],
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
        """Draw tokens and read them: those that single steps give, to the bit.

        Args:
            states: The state of each stream, of one row; all different, advanced in place.
            logits: Finite log-probabilities of each, ``[B, V]``.
            uniforms: A number in [0, 1) for each token, ``[K, B]``.
            how: How tokens are drawn.
            learn: What to learn of the tokens of each, ``[B]``.

        Returns:
            Tokens and their log-probabilities, ``[k, B]``, and the logits after the last,
            ``[B, V]``. If some of these are not finite, the call ended there, k is below K or
            equal, and the other streams are as good as ever.
        """
        ...


class Engine(Protocol):
    """Runs one bundle. Threads may share it."""

    @property
    def bundle(self) -> Bundle:
        """The bundle."""
        ...

    @property
    def state_table(self) -> list[StateTensor]:
        """Names, shapes and types of the state tensors, in order."""
        ...

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""
        ...

    @property
    def last_logits(self) -> bool:
        """Whether one call of the prefill graph predicts after its last token only.

        :meth:`prefill` then reads token by token unless ``last`` is true.
        """
        ...

    @property
    def independent_rows(self) -> bool:
        """Whether a row of a batch gives, up to rounding, what it gives alone."""
        ...

    @property
    def provider(self) -> str:
        """The execution provider that owns the graphs' nodes, such as ``CPUExecutionProvider``."""
        ...

    @property
    def version(self) -> str:
        """Name and version of the library that computes."""
        ...

    @property
    def threads(self) -> int:
        """Threads that one call may use."""
        ...

    def zero_state(self, batch: int = 1) -> EngineState:
        """Return the state at the start of a stream: zeros."""
        ...

    def prefill(
        self, tokens: npt.NDArray[Any], state: EngineState, learn: Learn = 1.0, last: bool = False
    ) -> npt.NDArray[Any]:
        """Read tokens and advance the state.

        Args:
            tokens: ``[B, T]`` of int64, T at least 1.
            state: A state of this engine; advanced in place.
            learn: 1 to store the tokens in the memory, 0 not to.
            last: Keep only the logits after the last token, so that the memory that a call
                takes does not depend on T.

        Returns:
            Logits after each token, ``[B, T, V]``, or after the last, ``[B, 1, V]``.

        Raises:
            EngineError: The engine failed, or refuses an input; the stream is where it was.
        """
        ...

    def step(
        self, tokens: npt.NDArray[Any], state: EngineState, learn: Learn = 1.0
    ) -> npt.NDArray[Any]:
        """Read one token per row and advance the state.

        Args:
            tokens: ``[B]`` of int64.
            state: A state of this engine; advanced in place.
            learn: 1 to store the tokens in the memory, 0 not to.

        Returns:
            Logits ``[B, V]``; the next step of the same state overwrites them.

        Raises:
            EngineError: The engine failed, or refuses an input; the stream is where it was.
        """
        ...

    def generator(self) -> TokenGenerator | None:
        """Return what draws tokens inside the engine, or ``None`` if this engine cannot.

        Raises:
            BundleError: The engine could, and the bundle lacks what it needs.
        """
        ...

    def close(self) -> None:
        """Release the graphs; the next call reloads them."""
        ...

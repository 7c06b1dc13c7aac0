"""One stream: all that changes when a token is read."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from ..engines.base import EngineState
from ..errors import UsageError
from ..loaded import LoadedModel
from ..sampling.params import LONGEST_BAD_WORD, SamplingParams
from .encoding import encode_pieces
from .generation import GeneratedToken, Generation
from .snapshot import Snapshot

__all__ = ["LEARN_MODES", "LearnMode", "Stream"]

LearnMode = Literal["read", "all", "none"]
LEARN_MODES: tuple[LearnMode, ...] = get_args(LearnMode)

_CLOSED = "is closed; open a new one with model.session()"

_RECENT = LONGEST_BAD_WORD
"""Tokens that a stream remembers, so that a bad word that begins in a prompt is seen."""


class Stream:
    """The one owner of a stream's mutable state.

    Everything that reads or writes (sessions, batches, beams, scores, saved state) goes through
    it. It is not guarded against threads: :class:`Session` is.

    Args:
        model: The model.
        learn: What the memory stores: ``read``, what is fed and not what is generated; ``all``;
            or ``none``.
        memory: Whether the stream has a memory; without one, nothing is stored and nothing found.

    Attributes:
        logits: Log-probabilities of the next token, ``[V]``; ``None`` before anything is read.
            The next step may overwrite them.
        position: Tokens read and written; what :func:`learn_text` reads is not counted.
        seen: Which tokens were read or written, ``[V]``.
        recent: The last tokens read or written.

    Raises:
        UsageError: ``learn`` is none of these.
    """

    def __init__(self, model: LoadedModel, learn: LearnMode = "read", memory: bool = True) -> None:
        if learn not in LEARN_MODES:
            raise UsageError(f"learn is {learn!r}; it must be one of {', '.join(LEARN_MODES)}")
        self.model = model
        self.learn_mode = learn
        self.memory = memory
        self.logits: npt.NDArray[Any] | None = None
        self.position = 0
        self.seen = np.zeros(model.vocab_size, np.bool_)
        self.recent: deque[int] = deque(maxlen=_RECENT)
        self._state: EngineState | None = model.engine.zero_state()
        self._whereabouts = _CLOSED
        self._decoder = model.tokenizer.decoder()
        self._learn_read = 1.0 if memory and learn != "none" else 0.0
        self._learn_written = 1.0 if memory and learn == "all" else 0.0
        self._token = np.zeros(1, np.int64)

    @property
    def state(self) -> EngineState:
        """The engine's state.

        Raises:
            UsageError: The stream is closed, or lent.
        """
        if self._state is None:
            raise UsageError(f"the session {self._whereabouts}")
        return self._state

    def check_open(self) -> None:
        """Refuse a stream that is closed, or lent.

        Raises:
            UsageError: It is.
        """
        if self._state is None:
            raise UsageError(f"the session {self._whereabouts}")

    @property
    def learn_written(self) -> float:
        """What an engine is told about tokens that the stream writes: 1 to store them, 0 not to."""
        return self._learn_written

    @property
    def pending(self) -> bytes:
        """Bytes that wait for the rest of their character."""
        return self._decoder.pending

    @property
    def recent_bytes(self) -> bytes:
        """The bytes of the last tokens."""
        token_bytes = self.model.tokenizer.token_bytes
        return b"".join(token_bytes[token] for token in self.recent)

    # Reading.

    def read(self, tokens: npt.NDArray[np.int64], learn: float | None = None) -> None:
        """Read tokens ``[1, T]``, T at least 1; if the engine fails, nothing has changed.

        Args:
            tokens: Tokens of this model.
            learn: 1 to store them in the memory, 0 not to; as the stream's mode says when absent.
        """
        learn = self._learn_read if learn is None else learn
        engine = self.model.engine
        if tokens.shape[1] == 1:
            logits = engine.step(tokens[:, 0], self.state, learn)[0]
        else:
            logits = engine.prefill(tokens, self.state, learn, last=True)[0, 0]
        self.logits = logits
        self.position += tokens.shape[1]
        self.seen[tokens[0]] = True
        self.recent.extend(tokens[0, -_RECENT:].tolist())
        # Half a character that was written is never completed now.
        self._decoder.pending = b""

    def read_text(self, pieces: Iterable[str], learn: float | None = None) -> int:
        """Read a text; warn of characters that the tokenizer has never seen.

        Args:
            pieces: The text, in pieces of any size.
            learn: As for :meth:`read`.

        Returns:
            The number of tokens read. If a piece or the engine fails, those before it were read.
        """
        return self.read_chunks(encode_pieces(self.model.tokenizer, pieces), learn)

    def read_chunks(self, chunks: Iterable[list[int]], learn: float | None = None) -> int:
        """Read lists of tokens, none of them empty; see :meth:`read_text`."""
        count = 0
        for tokens in chunks:
            self.read(np.asarray([tokens], np.int64), learn)
            count += len(tokens)
        return count

    def predict(self, tokens: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Read tokens ``[T]`` and return every prediction, ``[T, V]``."""
        logits = self.model.engine.prefill(tokens[None], self.state, self._learn_read)
        self.logits = logits[0, -1].copy()
        return np.asarray(logits[0])

    def start(self) -> None:
        """Read the bundle's start token, if nothing has been read yet."""
        if self.logits is None:
            self.read(np.asarray([[self.model.start_token]], np.int64))

    # Writing.

    def write(self, token: int) -> npt.NDArray[Any]:
        """Read back a token that the stream writes.

        Returns:
            Log-probabilities of the next, ``[V]``; the next step overwrites them.
        """
        self._token[0] = token
        logits: npt.NDArray[Any] = self.model.engine.step(
            self._token, self.state, self._learn_written
        )[0]
        self.advance(token, logits)
        return logits

    def advance(self, token: int, logits: npt.NDArray[Any]) -> None:
        """Note a written token that the engine has read for this stream.

        Args:
            token: The token.
            logits: The prediction after it, ``[V]``.
        """
        self.logits = logits
        self.position += 1
        self.seen[token] = True
        self.recent.append(token)

    def decode(self, token: int) -> str:
        """The text that a written token completes; empty while a character is incomplete."""
        return self._decoder.push(token)

    def begin(self, params: SamplingParams) -> Generation:
        """Begin a generation from here."""
        self.check_open()
        before = self.recent_bytes if params.bad_words else b""
        return Generation(params, self.model.tokenizer, self.seen, before)

    def next_token(self, generation: Generation) -> GeneratedToken:
        """Draw a token, read it back, and return what can be shown: all of it happens, or none."""
        self.start()
        assert self.logits is not None
        draw = generation.draw(self.logits)
        try:
            self.write(draw.token)
        except BaseException:
            generation.undo()
            raise
        return generation.accept(draw, self.decode(draw.token))

    # Copies, and the end.

    def snapshot(self) -> Snapshot:
        """Copy everything; the size of a copy never changes."""
        state = self.model.engine.zero_state()
        state.copy_row(0, self.state, 0)
        return Snapshot(
            self.model,
            state,
            None if self.logits is None else self.logits.copy(),
            self.position,
            self._decoder.pending,
            self.seen.copy(),
            tuple(self.recent),
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Return to a moment of this stream, or of another stream of the model, on any engine.

        Raises:
            UsageError: The snapshot is of another model.
        """
        if snapshot.model is self.model:
            self.state.copy_row(0, snapshot.state, 0)
        elif snapshot.model.identity == self.model.identity:
            self.state.write(snapshot.state.read())
        else:
            raise UsageError(
                f"the snapshot is of another model, {snapshot.model.bundle.path}, than the "
                f"session, {self.model.bundle.path}; return to one of the same bundle"
            )
        self.logits = None if snapshot.logits is None else snapshot.logits.copy()
        self.position = snapshot.position
        self._decoder.pending = snapshot.pending
        self.seen[...] = snapshot.seen
        self.recent.clear()
        self.recent.extend(snapshot.recent)

    def fork(self) -> Stream:
        """A twin that continues from here on its own."""
        twin = Stream(self.model, self.learn_mode, self.memory)
        twin.restore(self.snapshot())
        return twin

    def reset(self) -> None:
        """Start over, with an empty memory."""
        self.restore(Stream(self.model).snapshot())

    def lend(self, whereabouts: str) -> EngineState:
        """Hand the state over; until :meth:`take_back`, the stream refuses to be used.

        Args:
            whereabouts: What to tell its users, after "the session".

        Returns:
            The state.
        """
        state = self.state
        if self.logits is not None:
            self.logits = self.logits.copy()  # their buffer goes with the state
        self._state, self._whereabouts = None, whereabouts
        return state

    def take_back(self, state: EngineState, row: int) -> None:
        """Continue alone from a row of a state that other streams share."""
        own = self.model.engine.zero_state()
        own.copy_row(0, state, row)
        self._state, self._whereabouts = own, _CLOSED

    def close(self) -> None:
        """Release the state; the stream cannot be used any more.

        Raises:
            UsageError: It is lent.
        """
        if self._whereabouts != _CLOSED:
            raise UsageError(f"the session {self._whereabouts}, and close it then")
        self._state = None
        self.logits = None

"""One stream: all that changes when a token is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from ..context_slots import adapts, is_learnt, is_lookup, with_stored_slots
from ..engines.base import EngineState, Values
from ..errors import UsageError
from ..loaded import LoadedModel
from ..sampling.param_checks import checked_flag
from ..sampling.params import SamplingParams
from ..scalars import plain
from ..tokenizer import TextDecoder
from .encoding import encode_pieces
from .generation import Generation
from .history import TokenHistory
from .snapshot import Snapshot

__all__ = ["LEARN_MODES", "LearnMode", "Stream"]

LearnMode = Literal["read", "all", "none"]
LEARN_MODES: tuple[LearnMode, ...] = get_args(LearnMode)

_CLOSED = "is closed; open a new one with model.session()"


class Stream:
    """The one owner of a stream's mutable state.

    Everything that reads or writes (sessions, batches, beams, scores, saved state) goes through
    it. It is not guarded against threads: :class:`Session` is.

    Args:
        model: The model.
        learn: What the memory stores: ``read``, what is fed and not what is generated; ``all``;
            or ``none``.
        memory: Whether the stream has a memory; without one, nothing is stored and nothing found.
        taught: Whether it begins with what the bundle taught, if it taught anything.

    Attributes:
        logits: Log-probabilities of the next token, ``[V]``; ``None`` before anything is read.
            The next step may overwrite them.
        history: Tokens read and written; what :func:`learn_text` reads is not among them.

    Raises:
        UsageError: ``learn`` is none of these; ``memory`` or ``taught`` is not true or false.
    """

    def __init__(
        self,
        model: LoadedModel,
        learn: LearnMode = "read",
        memory: bool = True,
        taught: bool = True,
    ) -> None:
        if learn not in LEARN_MODES:
            raise UsageError(f"learn is {learn!r}; it must be one of {', '.join(LEARN_MODES)}")
        memory, taught = plain(memory), plain(taught)
        checked_flag("memory", memory)
        checked_flag("taught", taught)
        self.model = model
        self.learn_mode = learn
        self.memory = memory
        self.taught = taught and memory and model.taught is not None
        self.logits: npt.NDArray[Any] | None = None
        self.history = TokenHistory(model.vocab_size)
        self._state: EngineState | None = model.start_state(self.taught)
        self._whereabouts = _CLOSED
        self._decoder = model.tokenizer.decoder(exact=True)
        self._learn_read = 1.0 if memory and learn != "none" else 0.0
        # What is written is stored at most: online weights that followed it would trust it more
        # and more.
        stored = 0.5 if adapts(row.name for row in model.bundle.state) else 1.0
        self._learn_written = stored if memory and learn == "all" else 0.0
        self._token = np.zeros(1, np.int64)
        # Whether a step read the last token, so that the state has kept what it read.
        self._repeatable = False

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
        """What an engine is told to learn from tokens that the stream writes."""
        return self._learn_written

    @property
    def pending(self) -> bytes:
        """Bytes that wait for the rest of their character."""
        return self._decoder.pending

    # Reading.

    def read(self, tokens: npt.NDArray[np.int64], learn: float | None = None) -> None:
        """Read tokens ``[1, T]``, T at least 1; if that fails, nothing has changed.

        Args:
            tokens: Tokens of this model.
            learn: 1 to store them in the memory, 0 not to; as the stream's mode says when absent.
        """
        learn = self._learn_read if learn is None else learn
        engine, state = self.model.engine, self.state
        single = tokens.shape[1] == 1
        undo = self.undo_point()
        copy = None if single else self._copied(state)
        undo_state = state.undo_point() if copy is None else partial(state.copy_row, 0, copy, 0)
        try:
            if not single:
                engine.prefill(tokens[:, :-1], state, learn, last=True)
            # A step of its own for the last token, so that it can be read again.
            self.logits = engine.step(tokens[:, -1], state, learn)[0]
            self._repeatable = True
            if single:
                self.history.append(int(tokens[0, 0]))
            else:
                self.history.extend(tokens[0].tolist())
            # Half a character that was written is never completed now.
            self._decoder.pending = b""
        except BaseException:
            undo_state()
            undo()
            raise
        if copy is not None:
            self.model.give_back(copy)

    def _copied(self, state: EngineState) -> EngineState:
        copy = self.model.spare_state()
        copy.copy_row(0, state, 0)
        return copy

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
        self._repeatable = False
        return np.asarray(logits[0])

    def with_memory(self, values: Values) -> tuple[Values, npt.NDArray[Any] | None]:
        """The state and the prediction that the stream would have now if its memory were another.

        The last token is read again from the state before it, against that memory, and not stored.

        Args:
            values: The stream's state with the other memory.

        Returns:
            The state, with what it has looked up in that memory, and log-probabilities of the next
            token, ``[V]``. Without a last token that can be read again (nothing was read yet, or a
            file of an earlier version was restored), the prediction that there is.
        """
        values = with_stored_slots(values, values)
        if not self._repeatable:
            return values, self.logits
        engine = self.model.engine
        again = engine.zero_state()
        before = {n: v for n, v in self.state.read_before().items() if not is_learnt(n)}
        before = with_stored_slots(before, values)
        again.write({**values, **before, "position": values["position"]})
        last = np.asarray(self.history.recent[-1:], np.int64)
        prediction: npt.NDArray[Any] = engine.step(last, again, 0.0)[0].copy()
        found = {name: v for name, v in again.read().items() if is_lookup(name)}
        return {**values, **found}, prediction

    def start(self) -> None:
        """Read the bundle's start token, if nothing has been read yet."""
        if self.logits is None:
            self.read(np.asarray([[self.model.start_token]], np.int64))

    # Writing.

    def write(self, token: int) -> npt.NDArray[Any]:
        """Read back a token that was chosen elsewhere; if that fails, nothing has changed.

        Returns:
            Log-probabilities of the next, ``[V]``; the next step overwrites them.
        """
        undo, undo_state = self.undo_point(), self.state.undo_point()
        try:
            logits = self.read_back(token)
            self._decoder.push(token)
        except BaseException:
            undo_state()
            undo()
            raise
        return logits

    def read_back(self, token: int) -> npt.NDArray[Any]:
        """Read a written token that :meth:`decode` has had or will have; see :meth:`write`."""
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
        self.history.append(token)
        self.logits = logits
        self._repeatable = True

    def undo_point(self) -> Callable[[], None]:
        """Return what takes back the next read, or the next token that is written, or adopted.

        What the engine's state holds has an undo point of its own.
        """
        logits, pending, repeatable = self.logits, self._decoder.pending, self._repeatable
        undo_history, state = self.history.undo_point(), self._state

        def undo() -> None:
            self.logits, self._repeatable, self._state = logits, repeatable, state
            self._decoder.pending = pending
            undo_history()

        return undo

    def adopt(
        self, state: EngineState, tokens: list[int], logits: npt.NDArray[Any], pending: bytes
    ) -> None:
        """Continue from a state in which the engine has read tokens that were written.

        Args:
            state: The state, of one row; the stream owns it from now on.
            tokens: The tokens.
            logits: The prediction after them, ``[V]``.
            pending: Bytes that wait for the rest of their character.
        """
        self.history.extend(tokens)
        self._state, self.logits, self._repeatable = state, logits, True
        self._decoder.pending = pending

    def decoder_twin(self) -> TextDecoder:
        """A decoder of what is written from here on, which leaves the stream's alone."""
        twin = self.model.tokenizer.decoder(exact=True)
        twin.pending = self._decoder.pending
        return twin

    def decode(self, token: int) -> str:
        """The text that a written token completes; empty while a character is incomplete."""
        return self._decoder.push(token)

    def begin(self, params: SamplingParams) -> Generation:
        """Begin a generation from here."""
        self.check_open()
        tokenizer, before = self.model.tokenizer, b""
        recent = self.history.recent if params.bad_words or params.looks_back else ()
        if recent:
            before = b"".join(tokenizer.token_bytes[token] for token in recent)
        return Generation(params, tokenizer, self.history.seen, before, recent)

    def next_token(self, generation: Generation) -> None:
        """Draw a token, read it back, and leave it in the outbox: all of it happens, or nothing.

        Whatever interrupts it, wherever: the stream is before the token or after it. A new stream
        first reads the start token, which stays read.
        """
        self.start()
        assert self.logits is not None
        undo, undo_state = self.undo_point(), self.state.undo_point()
        undo_generation = generation.undo_point()
        try:
            draw = generation.draw(self.logits)
            self.read_back(draw.token)
            generation.outbox = generation.accept(draw, self.decode(draw.token))
        except BaseException:
            undo_state()
            undo()
            undo_generation()
            raise

    # Copies, and the end.

    def snapshot(self) -> Snapshot:
        """Copy everything; the size of a copy never changes."""
        state = self.model.engine.zero_state()
        state.copy_row(0, self.state, 0)
        return Snapshot(
            self.model,
            state,
            None if self.logits is None else self.logits.copy(),
            self.history.position,
            self._decoder.pending,
            self.history.seen.copy(),
            self.history.recent,
            self._repeatable,
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Return to a moment of this stream, or of another stream of the model, on any engine.

        Raises:
            UsageError: The snapshot is of another model.
        """
        self.check_snapshot(snapshot)
        try:
            self._restore(snapshot)
        except BaseException:
            self._restore(snapshot)  # half a return would be worse than a whole one
            raise

    def check_snapshot(self, snapshot: Snapshot) -> None:
        """Refuse a snapshot of another model, or what is none.

        Raises:
            UsageError: It is one of these.
        """
        if not isinstance(snapshot, Snapshot):
            raise UsageError(
                f"the snapshot is {snapshot!r}; give what session.checkpoint() returned"
            )
        ours, theirs = self.model, snapshot.model
        if (theirs.identity, theirs.bundle.state) != (ours.identity, ours.bundle.state):
            raise UsageError(
                f"the snapshot is of another model, {theirs.bundle.path}, than the "
                f"session, {ours.bundle.path}; return to one of the same bundle"
            )

    def _restore(self, snapshot: Snapshot) -> None:
        if snapshot.model is self.model:
            self.state.copy_row(0, snapshot.state, 0)
        else:
            self.state.write(snapshot.state.read())
            self.state.write_before(snapshot.state.read_before())
        self.logits = None if snapshot.logits is None else snapshot.logits.copy()
        self._repeatable = snapshot.repeatable
        self._decoder.pending = snapshot.pending
        self.history.restore(snapshot.position, snapshot.seen, snapshot.recent)

    def fork(self) -> Stream:
        """A twin that continues from here on its own."""
        twin = Stream(self.model, self.learn_mode, self.memory, self.taught)
        twin.restore(self.snapshot())
        return twin

    def reset(self) -> None:
        """Start over, with the memory that the stream began with."""
        self.restore(Stream(self.model, taught=self.taught).snapshot())

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
        self._whereabouts = whereabouts
        self._state = None
        return state

    @property
    def is_lent(self) -> bool:
        """Whether the state is lent."""
        return self._whereabouts != _CLOSED

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
        if self.is_lent:
            raise UsageError(f"the session {self._whereabouts}, and close it then")
        self._state = None
        self.logits = None

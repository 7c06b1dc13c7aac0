"""One stream of text: a model's state, and what reads and writes it."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Sequence, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..engines.base import EngineState
from ..errors import UsageError
from ..sampling.params import SamplingParams
from .encoding import checked_tokens, encode_pieces
from .generation import GeneratedToken, Generation
from .memory import forget_all, learn_text
from .snapshot import Mark
from .text_stream import TextStream, TokenStream
from .thread_guard import OneThread, alone

if TYPE_CHECKING:
    from ..model import Model
    from .beam_search import BeamText
    from .score import Score

__all__ = ["LEARN_MODES", "Session"]

LEARN_MODES = ("read", "all", "none")

_CLOSED = "is closed; open a new one with model.session()"

_RECENT = 64
"""Tokens whose text a session remembers, so that a bad word that begins in a prompt is seen."""


class Session:
    """One stream's state.

    One thread at a time uses it: a second is refused, and nothing is mixed up.

    Args:
        model: The model.
        learn: What the stream's memory stores: ``read``, what is fed and not what
            is generated; ``all``; or ``none``.
        memory: Whether the stream has a memory; without, nothing is stored and nothing found.

    Raises:
        UsageError: ``learn`` is none of these.
    """

    def __init__(self, model: Model, learn: str = "read", memory: bool = True) -> None:
        if learn not in LEARN_MODES:
            raise UsageError(f"learn is {learn!r}; it must be one of {', '.join(LEARN_MODES)}")
        self.model = model
        self.learn_mode = learn
        self.memory = memory
        self._inner: EngineState | None = model.engine.zero_state()
        self._elsewhere = _CLOSED
        self._decoder = model.tokenizer.decoder()
        self._logits: npt.NDArray[Any] | None = None
        self._position = 0
        self._seen = np.zeros(model.vocab_size, np.bool_)
        self._recent: deque[int] = deque(maxlen=_RECENT)
        self._generation: Generation | None = None
        self._one = np.zeros(1, np.int64)
        self._alone = OneThread("session")

    # What a stream is.

    @property
    def _state(self) -> Any:
        if self._inner is None:
            raise UsageError(f"the session {self._elsewhere}")
        return self._inner

    @property
    def logits(self) -> npt.NDArray[Any] | None:
        """Log-probabilities of the next token, ``[V]``; ``None`` before anything is read."""
        return None if self._logits is None else self._logits.copy()

    @property
    @alone
    def state(self) -> dict[str, npt.NDArray[Any]]:
        """A copy of every state tensor, by name, batch first."""
        values: dict[str, npt.NDArray[Any]] = self._state.read()
        return values

    @property
    def position(self) -> int:
        """Number of tokens read and written so far; what :meth:`learn` reads is not counted."""
        return self._position

    # Reading.

    @alone
    def feed(self, text: str | Iterable[str]) -> int:
        """Read a text of any length; warn of characters that the tokenizer has never seen.

        Memory does not grow with the text beyond the text itself: it goes in by pieces, and only
        the last prediction is kept. If it fails, the stream is where it was.

        Args:
            text: The text, or its pieces.

        Returns:
            The number of tokens read.
        """
        if isinstance(text, str) and len(text) <= 1 << 16:
            return self._feed([text])  # one call, which leaves nothing half done
        before = self._copy()
        try:
            return self._feed([text] if isinstance(text, str) else text)
        except BaseException:
            self._go_back(before)
            raise

    def _feed(self, pieces: Iterable[str]) -> int:
        count = 0
        for tokens in encode_pieces(self.model.tokenizer, pieces):
            self.feed_tokens(tokens)
            count += len(tokens)
        return count

    @alone
    def feed_tokens(self, tokens: Sequence[int]) -> None:
        """Read tokens; if it fails, the stream is where it was.

        Raises:
            UsageError: A number is no token of this model.
        """
        if isinstance(tokens, Sized) and not len(tokens):
            return
        array = checked_tokens(tokens, self.model.vocab_size)
        if array.shape[1] == 1:
            self._logits = self.model.engine.step(array[:, 0], self._state, self._learn_read)[0]
        else:
            self._logits = self.model.engine.prefill(
                array, self._state, self._learn_read, last=True
            )[0, 0]
        self._drop_drawn()
        self._position += array.shape[1]
        self._seen[array[0]] = True
        self._recent.extend(array[0, -_RECENT:].tolist())
        # Half a character that was written is never completed now.
        self._decoder.pending = b""

    @alone
    def step(self, token: int) -> npt.NDArray[Any]:
        """Read back one token that was chosen elsewhere, as :meth:`stream` reads its own.

        Args:
            token: The token.

        Returns:
            Log-probabilities of the next, ``[V]``; the next step overwrites them.
        """
        checked_tokens([token], self.model.vocab_size)
        logits = self._step(token)
        self._drop_drawn()
        self._decoder.push(token)
        return logits

    def _step(self, token: int) -> npt.NDArray[Any]:
        self._one[0] = token
        self._logits = self.model.engine.step(self._one, self._state, self._learn_written)[0]
        self._note(token)
        return self._logits

    def _predict(self, tokens: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Read tokens ``[T]`` and keep every prediction, ``[T, V]``."""
        logits = self.model.engine.prefill(tokens[None], self._state, self._learn_read)
        self._logits = logits[0, -1].copy()
        found: npt.NDArray[Any] = logits[0]
        return found

    @alone
    def score(
        self,
        text: str | Iterable[str],
        *,
        per_token: bool = False,
        progress: Callable[[int], object] | None = None,
    ) -> Score:
        """Measure how well the stream would predict a text; it stays where it is.

        The text may be of any length: memory does not depend on it, unless ``per_token`` is
        asked for.

        Args:
            text: The text, or its pieces.
            per_token: Keep the log-probability of each token.
            progress: Called with the number of tokens read, after each chunk.

        Returns:
            The score.

        Raises:
            UsageError: The text is too short for a prediction.
        """
        from .score import score_stream

        before = self._copy()
        try:
            pieces = [text] if isinstance(text, str) else text
            return score_stream(self, pieces, per_token, progress)
        finally:
            self._go_back(before)

    @property
    def _learn_read(self) -> float:
        return 1.0 if self.learn_mode != "none" and self.memory else 0.0

    @property
    def _learn_written(self) -> float:
        return 1.0 if self.learn_mode == "all" and self.memory else 0.0

    def _note(self, token: int) -> None:
        self._position += 1
        self._seen[token] = True
        self._recent.append(token)

    # Writing.

    @alone
    def tokens(self, params: SamplingParams | None = None, **sampling: Any) -> TokenStream:
        """Generate token by token, with log-probabilities.

        Args:
            params: How to sample; the bundle's defaults when absent.
            **sampling: Fields of :class:`SamplingParams` to change.

        Returns:
            An iterator over :class:`GeneratedToken`.

        Raises:
            UsageError: An option has a value that can never work.
        """
        return TokenStream(self, self._begin(self.model.sampling(params, **sampling)))

    def stream(
        self,
        params: SamplingParams | None = None,
        *,
        on_text: Callable[[str], object] | None = None,
        **sampling: Any,
    ) -> TextStream:
        """Generate text piece by piece.

        A piece is never a part of a character or of a stop string: both wait until they are
        whole.

        Args:
            params: How to sample; the bundle's defaults when absent.
            on_text: Called with each piece.
            **sampling: Fields of :class:`SamplingParams` to change.

        Returns:
            An iterator over pieces of text, none of them empty.

        Raises:
            UsageError: An option has a value that can never work.
        """
        return TextStream(self.tokens(params, **sampling), on_text)

    @alone
    def generate(
        self,
        params: SamplingParams | None = None,
        *,
        on_text: Callable[[str], object] | None = None,
        in_graph: bool = False,
        **sampling: Any,
    ) -> str:
        """Generate a text.

        Args:
            params: How to sample; the bundle's defaults when absent.
            on_text: Called with each piece.
            in_graph: Draw tokens inside the bundle's generating graph, many for one call: the
                same text for the same seed. It knows temperature, top-k, top-p and stop strings,
                and ``on_text`` must leave the session alone.
            **sampling: Fields of :class:`SamplingParams` to change.

        Returns:
            The text.

        Raises:
            UsageError: An option has a value that can never work, or one that the graph does not
                know.
            BundleError: ``in_graph``, and the bundle has no generating graph.
        """
        if in_graph:
            from .in_graph import write_in_graph

            generation = self._begin(self.model.sampling(params, **sampling))
            return write_in_graph(self, generation, on_text)
        return "".join(self.stream(params, on_text=on_text, **sampling))

    @alone
    def samples(self, n: int, params: SamplingParams | None = None, **sampling: Any) -> list[str]:
        """Generate several texts from here; the stream itself stays where it is.

        Args:
            n: How many.
            params: How to sample; the bundle's defaults when absent. Sample i has the seed
                ``seed + i``, so that the first is what :meth:`generate` gives.
            **sampling: Fields of :class:`SamplingParams` to change.

        Returns:
            The texts.
        """
        if type(n) is not int or n < 1:
            raise UsageError(f"n is {n!r}; it must be a whole number, 1 or above")
        base = self.model.sampling(params, **sampling)
        texts = []
        for index in range(n):
            seed = None if base.seed is None else base.seed + index
            with self.fork() as twin:
                texts.append(twin.generate(base, seed=seed))
        return texts

    @alone
    def beam_search(
        self,
        beams: int = 4,
        *,
        max_new_tokens: int = 50,
        stop: str | Sequence[str] = (),
        length_penalty: float = 1.0,
    ) -> list[BeamText]:
        """Search for the likeliest texts from here; the stream itself stays where it is.

        Args:
            beams: Candidates that are kept after each step.
            max_new_tokens: Tokens of the longest text.
            stop: Texts that end a candidate.
            length_penalty: The exponent of the length that log-probabilities are divided by.

        Returns:
            At most ``beams`` texts, best first.

        Raises:
            UsageError: An option has a value that can never work.
        """
        from .beam_search import beam_search

        stops = tuple(SamplingParams(stop=stop).stop)
        return beam_search(self, beams, max_new_tokens, stops, length_penalty)

    @alone
    def resume(
        self,
        max_new_tokens: int | None = None,
        *,
        on_text: Callable[[str], object] | None = None,
    ) -> TextStream:
        """Go on with the last generation: the same options, random numbers and held-back text.

        Args:
            max_new_tokens: Tokens to generate from here; what was left of the first limit when
                absent.
            on_text: Called with each piece.

        Returns:
            An iterator over pieces of text: what would have come, had it never been interrupted.

        Raises:
            UsageError: Nothing was generated that could be gone on with.
        """
        self._state  # noqa: B018 - is it open?
        if self._generation is None:
            raise UsageError("the session has no generation to resume; begin one with stream()")
        if max_new_tokens is not None:
            self.model.sampling(max_new_tokens=max_new_tokens)
        self._generation.extend(max_new_tokens)
        return TextStream(TokenStream(self, self._generation), on_text)

    @alone
    def _begin(self, params: SamplingParams) -> Generation:
        self._state  # noqa: B018 - is it open?
        before = b""
        if params.bad_words:
            token_bytes = self.model.tokenizer.token_bytes
            before = b"".join(token_bytes[token] for token in self._recent)
        self._generation = Generation(params, self.model.tokenizer, self._seen, before)
        return self._generation

    def _drop_drawn(self) -> None:
        """Something else was read than the token that was to be written."""
        if self._generation is not None:
            self._generation.drawn = None

    @alone
    def _write(self, generation: Generation) -> GeneratedToken:
        """Draw a token, read it back, and give out what can be shown."""
        self._start()
        logits = self._logits
        assert logits is not None
        if generation.drawn is None:
            token = generation.sampler.draw(logits)
            top = generation.likeliest(logits) if generation.params.top_logprobs else ()
            # Should the step fail, the token is not drawn again, and the text is the same.
            generation.drawn = (token, float(logits[token]), top)
        token, logprob, top = generation.drawn
        self._step(token)
        generation.drawn = None
        return generation.push(token, self._decoder.push(token), logprob, top)

    def _start(self) -> None:
        if self._logits is None:
            # Nothing was read: start as if after the bundle's start token.
            self.feed_tokens([self.model.start_token])

    # The memory.

    @alone
    def learn(self, text: str | Iterable[str]) -> int:
        """Read a text into the memory alone: the stream goes on where it is, and knows it.

        The text is read as a stream of its own, from the start. What it leaves in the memory is
        kept, and so are the oldest entries as far as there is room; everything else that the
        stream remembers is as before.

        Args:
            text: The text, or its pieces.

        Returns:
            The number of tokens read.

        Raises:
            UsageError: The stream has no memory.
        """
        return learn_text(self, [text] if isinstance(text, str) else text)

    @alone
    def forget(self) -> None:
        """Empty the memory; the stream itself goes on where it is."""
        forget_all(self)

    # Copies, and the end.

    @alone
    def checkpoint(self) -> Mark:
        """Remember this moment, to come back to with :meth:`rollback`.

        It takes a copy of the state, whose size never changes.
        """
        generation = None if self._generation is None else self._generation.snapshot()
        return dataclasses.replace(self._copy(), generation=generation)

    @alone
    def rollback(self, mark: Mark) -> None:
        """Go back: what was read or written since is neither remembered nor learnt.

        Args:
            mark: What :meth:`checkpoint` returned, here or in another session of the model.
        """
        self._go_back(mark)
        self._generation = None
        if mark.generation is not None:
            self._generation = Generation.from_snapshot(
                mark.generation, self.model.tokenizer, self._seen
            )

    def _copy(self) -> Mark:
        copy = self.model.engine.zero_state()
        copy.copy_row(0, self._state, 0)
        return Mark(
            copy,
            self.logits,
            self._position,
            self._decoder.pending,
            self._seen.copy(),
            tuple(self._recent),
        )

    def _go_back(self, mark: Mark) -> None:
        self._state.copy_row(0, mark.state, 0)
        self._logits = None if mark.logits is None else mark.logits.copy()
        self._position = mark.position
        self._decoder.pending = mark.pending
        self._seen[...] = mark.seen
        self._recent.clear()
        self._recent.extend(mark.recent)

    @alone
    def fork(self) -> Session:
        """A twin that goes on from here on its own."""
        twin = Session(self.model, self.learn_mode, self.memory)
        twin.rollback(self.checkpoint())
        return twin

    @alone
    def reset(self) -> None:
        """Start anew, with an empty memory."""
        self.rollback(Session(self.model).checkpoint())

    @alone
    def save(self, path: str | Path) -> None:
        """Write the stream to a file, which :meth:`rillet.runtime.Model.restore` reads.

        The file is written atomically: an interrupted save leaves the old one whole.

        Args:
            path: The file.
        """
        from .saved_state import save_session

        save_session(self, Path(path))

    @alone
    def _move_out(self, where: str) -> None:
        """Give the state away; whoever uses the session is told where it is."""
        self._inner, self._elsewhere = None, where

    @alone
    def _move_in(self, state: Any, row: int) -> None:
        """Take the state back."""
        self._inner = self.model.engine.zero_state()
        self._inner.copy_row(0, state, row)
        self._elsewhere = _CLOSED

    @alone
    def close(self) -> None:
        """Let go of the state; the session cannot be used any more."""
        if self._elsewhere != _CLOSED:
            raise UsageError(f"the session {self._elsewhere}, and close it then")
        self._inner = None
        self._logits = None
        self._generation = None

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

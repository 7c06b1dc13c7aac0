"""The guarded public face of one stream."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from ..errors import UsageError
from ..files import as_path
from ..loaded import LoadedModel
from ..sampling.param_checks import checked_flag, checked_function
from ..sampling.params import SamplingParams
from ..scalars import plain
from ..uncopied import Uncopied
from .beam_search import BeamText, beam_search
from .best_of import best_seed
from .draft import Writer
from .encoding import checked_tokens, encode_pieces
from .generation import Generation
from .memory import forget_all, learn_text
from .score import Score, score_stream
from .snapshot import Snapshot
from .stream import LearnMode, Stream
from .text_stream import TextStream, TokenStream
from .thread_guard import ThreadGuard, exclusive

__all__ = ["Session"]

_SHORT = 1 << 16
"""Characters that one call of the engine reads, which leaves nothing half done."""


class Session(Uncopied):
    """One stream, and the generation that it last began.

    One thread at a time uses it; a second is refused, and nothing is mixed up.

    Args:
        model: The model.
        learn: What the stream's memory stores: ``read``, what is fed and not what
            is generated; ``all``; or ``none``.
        memory: Whether the stream has a memory; without one, nothing is stored and nothing found.
        taught: Whether it begins with what the bundle taught, if it taught anything; otherwise, it
            begins at zeros.

    Raises:
        UsageError: ``learn`` is none of these.
    """

    instead = "session.fork() gives a twin, and session.save(path) a file for another process"

    def __init__(
        self,
        model: LoadedModel,
        learn: LearnMode = "read",
        memory: bool = True,
        taught: bool = True,
    ) -> None:
        self.model = model
        self.guard = ThreadGuard("session")
        self._writer = Writer(Stream(model, learn, memory, taught), self.guard)
        self._generation: Generation | None = None

    @property
    def _stream(self) -> Stream:
        """The stream, where the reader of its text is; nothing is drawn ahead of him any more."""
        return self._writer.settle()

    @property
    def learn_mode(self) -> LearnMode:
        """What the memory stores."""
        return self._writer.stream.learn_mode

    @property
    def memory(self) -> bool:
        """Whether the stream has a memory."""
        return self._writer.stream.memory

    @property
    def taught(self) -> bool:
        """Whether the stream began with what the bundle taught."""
        return self._writer.stream.taught

    @property
    @exclusive
    def logits(self) -> npt.NDArray[Any] | None:
        """Log-probabilities of the next token, ``[V]``; ``None`` before anything is read."""
        logits = self._stream.logits
        return None if logits is None else logits.copy()

    @property
    @exclusive
    def state(self) -> dict[str, npt.NDArray[Any]]:
        """A copy of every state tensor, by name, batch first."""
        return self._stream.state.read()

    @property
    def position(self) -> int:
        """Number of tokens read and written so far; what :meth:`learn` reads is not counted."""
        return self._writer.position

    @property
    def can_resume(self) -> bool:
        """Whether there is a generation that :meth:`resume` can continue."""
        return self._generation is not None

    @property
    def last_sampling(self) -> SamplingParams | None:
        """How the last generation samples, its seed included; ``None`` before the first."""
        return None if self._generation is None else self._generation.params

    @property
    def finish_reason(self) -> str | None:
        """Why the last generation ended, as in :class:`GenerationStats`; ``None`` if it has not."""
        return None if self._generation is None else self._generation.finish_reason

    @property
    def stop_string(self) -> str | None:
        """The stop string that ended the last generation."""
        return None if self._generation is None else self._generation.stop_string

    # Reading.

    @exclusive
    def feed(self, text: str | Iterable[str]) -> int:
        """Read a text of any length; warn of characters that the tokenizer has never seen.

        Memory use grows with nothing but the text itself: it is read in pieces, and only the last
        prediction is kept. If reading fails, the stream is where it was.

        Args:
            text: The text, or its pieces.

        Returns:
            The number of tokens read.
        """
        if isinstance(text, str) and len(text) <= _SHORT:
            # Encoded, and warned of, before any of it is read.
            count = self._stream.read_chunks(list(encode_pieces(self.model.tokenizer, [text])))
        else:
            before = self._stream.snapshot()
            try:
                count = self._stream.read_text([text] if isinstance(text, str) else text)
            except BaseException:
                self._stream.restore(before)
                raise
        if count:
            self._drop_owed()
        return count

    @exclusive
    def feed_tokens(self, tokens: Sequence[int]) -> None:
        """Read tokens; if it fails, the stream is where it was.

        Raises:
            UsageError: A number is no token of this model.
        """
        array = checked_tokens(tokens, self.model.vocab_size)
        if array.size:
            self._stream.read(array)
            self._drop_owed()

    @exclusive
    def step(self, token: int) -> npt.NDArray[Any]:
        """Read back one token that was chosen elsewhere, as :meth:`stream` reads its own.

        Args:
            token: The token.

        Returns:
            Log-probabilities of the next, ``[V]``.
        """
        checked_tokens([token], self.model.vocab_size)
        logits: npt.NDArray[Any] = self._stream.write(token).copy()
        self._drop_owed()
        return logits

    @exclusive
    def score(
        self,
        text: str | Iterable[str],
        *,
        per_token: bool = False,
        progress: Callable[[int], object] | None = None,
    ) -> Score:
        """Measure how well the stream would predict a text; it stays where it is.

        The text may be of any length: memory use does not depend on it, unless ``per_token`` is
        set.

        Args:
            text: The text, or its pieces.
            per_token: Keep the log-probability of each token.
            progress: Called with the number of tokens read, after each chunk.

        Returns:
            The score.

        Raises:
            UsageError: The text is too short for a prediction.
        """
        checked_flag("per_token", per_token)
        checked_function("progress", progress, "a number of tokens")
        before = self._stream.snapshot()
        try:
            return score_stream(self._stream, _pieces(text), per_token, progress)
        finally:
            self._stream.restore(before)

    def _drop_owed(self) -> None:
        """Something was read that the generation did not write."""
        if self._generation is not None:
            self._generation.drop_owed()

    # Writing.

    @exclusive
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
        return self._token_stream(self._begin(params, sampling))

    def stream(
        self,
        params: SamplingParams | None = None,
        *,
        on_text: Callable[[str], object] | None = None,
        **sampling: Any,
    ) -> TextStream:
        """Generate text piece by piece.

        A piece is never part of a character or of a stop string: both wait until they are whole.

        Args:
            params: How to sample; the bundle's defaults when absent.
            on_text: Called with each piece.
            **sampling: Fields of :class:`SamplingParams` to change.

        Returns:
            An iterator over pieces of text, none of them empty.

        Raises:
            UsageError: An option has a value that can never work.
        """
        checked_function("on_text", on_text, "a text")
        return TextStream(self.tokens(params, **sampling), on_text)

    def generate(
        self,
        params: SamplingParams | None = None,
        *,
        on_text: Callable[[str], object] | None = None,
        in_graph: bool = False,
        best_of: int = 1,
        **sampling: Any,
    ) -> str:
        """Generate a text.

        If an error or an interrupt cuts it off, :meth:`resume` begins with what was written.

        Args:
            params: How to sample; the bundle's defaults when absent.
            on_text: Called with each piece, which then does not wait for :meth:`resume` any more.
            in_graph: Draw tokens inside the bundle's generating graph, many for one call: the
                same text for the same seed. It knows temperature, top-k, top-p and stop strings,
                and ``on_text`` must leave the session alone.
            best_of: Draft so many texts, with seeds in a row, and write the one whose tokens are
                likeliest on average.
            **sampling: Fields of :class:`SamplingParams` to change.

        Returns:
            The text.

        Raises:
            UsageError: An option has a value that can never work, or one that the graph does not
                know.
            BundleError: ``in_graph`` is set, and the bundle has no generating graph.
        """
        generation, text = self._write_text(params, on_text, in_graph, best_of, sampling)
        # Nothing is called from here on, so no interrupt loses the text.
        generation.kept = []
        return text

    @exclusive
    def _write_text(
        self,
        params: SamplingParams | None,
        on_text: Callable[[str], object] | None,
        in_graph: bool,
        best_of: int,
        sampling: dict[str, Any],
    ) -> tuple[Generation, str]:
        """A generation that has ended, and its text, which it keeps until that is returned."""
        checked_function("on_text", on_text, "a text")
        checked_flag("in_graph", in_graph)
        if best_of != 1:
            sampling = {**sampling, "seed": self.best_seed(best_of, params, **sampling)}
        if in_graph:
            from .in_graph import generate_in_graph

            generation = self._begin(params, sampling)
            return generation, generate_in_graph(self._stream, generation, on_text)
        stream = self.stream(params, on_text=on_text, **sampling)
        text = stream.keep_all() if on_text is None else "".join(stream)
        return stream.tokens.generation, text

    @exclusive
    def best_seed(
        self,
        drafts: int,
        params: SamplingParams | None = None,
        *,
        watch: Callable[[Callable[[], None]], object] | None = None,
        **sampling: Any,
    ) -> int:
        """Find the seed, of several in a row, whose text has the likeliest tokens on average.

        The stream stays where it is: give the seed to :meth:`stream` or :meth:`generate`.

        Args:
            drafts: How many seeds to try, from the one that is given on.
            params: How to sample; the bundle's defaults when absent.
            watch: Called before each draft with what cancels it; no other follows then.
            **sampling: Fields of :class:`SamplingParams` to change.

        Returns:
            The seed.

        Raises:
            UsageError: An option has a value that can never work.
        """
        base = self.model.sampling(params, **sampling)
        first = secrets.randbits(32) if base.seed is None else base.seed
        return best_seed(lambda seed: self.fork().tokens(base, seed=seed), drafts, first, watch)

    @exclusive
    def samples(self, n: int, params: SamplingParams | None = None, **sampling: Any) -> list[str]:
        """Generate several texts from here; the stream itself stays where it is.

        Args:
            n: How many.
            params: How to sample; the bundle's defaults when absent. Sample i has the seed
                ``seed + i``, so the first is what :meth:`generate` returns.
            **sampling: Fields of :class:`SamplingParams` to change.

        Returns:
            The texts.
        """
        n = plain(n)
        if type(n) is not int or n < 1:
            raise UsageError(f"n is {n!r}; it must be a whole number, 1 or above")
        base = self.model.sampling(params, **sampling)
        texts = []
        for index in range(n):
            seed = None if base.seed is None else base.seed + index
            with self.fork() as twin:
                texts.append(twin.generate(base, seed=seed))
        return texts

    @exclusive
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
            beams: Candidates kept after each step.
            max_new_tokens: Tokens of the longest text.
            stop: Texts that end a candidate.
            length_penalty: The exponent of the length that log-probabilities are divided by.

        Returns:
            At most ``beams`` texts, best first.

        Raises:
            UsageError: An option has a value that can never work.
        """
        stops = tuple(SamplingParams(stop=stop).stop)
        return beam_search(self._stream, beams, max_new_tokens, stops, length_penalty)

    @exclusive
    def resume(
        self,
        max_new_tokens: int | None = None,
        *,
        on_text: Callable[[str], object] | None = None,
        **sampling: Any,
    ) -> TextStream:
        """Continue the last generation: the same options, random numbers and held-back text.

        Args:
            max_new_tokens: Tokens to generate from here; what was left of the first limit when
                absent.
            on_text: Called with each piece.
            **sampling: Fields of :class:`SamplingParams` to change from here on; constraints
                and penalties then start over.

        Returns:
            An iterator over pieces of text: what would have come without the interruption.

        Raises:
            UsageError: There is no generation to resume.
        """
        checked_function("on_text", on_text, "a text")
        self._stream.check_open()
        if self._generation is None:
            raise UsageError("the session has no generation to resume; begin one with stream()")
        self._generation.put_back()
        if max_new_tokens is not None:
            max_new_tokens = self.model.sampling(max_new_tokens=max_new_tokens).max_new_tokens
        if sampling:
            count, earlier = self._generation.count, self._generation.params
            left = {
                "max_new_tokens": max(self._generation.limit - count, 0),
                "min_new_tokens": max(earlier.min_new_tokens - count, 0),
            }
            params = self.model.sampling(earlier, **{**left, **sampling})
            successor = self._stream.begin(params)
            successor.extend(max_new_tokens)
            successor.continue_from(self._generation)
            self._generation = successor
        else:
            self._generation.extend(max_new_tokens)
        return TextStream(self._token_stream(self._generation), on_text)

    def _begin(self, params: SamplingParams | None, sampling: dict[str, Any]) -> Generation:
        self._generation = self._stream.begin(self.model.sampling(params, **sampling))
        return self._generation

    def _token_stream(self, generation: Generation) -> TokenStream:
        return TokenStream(generation, self._writer, self.model.report)

    # The memory.

    @exclusive
    def learn(self, text: str | Iterable[str]) -> int:
        """Read a text into the memory alone: the stream continues where it is, and knows the text.

        The text is read as a stream of its own, from the start. What it leaves in the memory is
        kept, and so are older entries as far as there is room; everything else that the stream
        remembers is unchanged.

        Args:
            text: The text, or its pieces.

        Returns:
            The number of tokens read.

        Raises:
            UsageError: The stream has no memory.
        """
        return learn_text(self._stream, _pieces(text))

    @exclusive
    def forget(self) -> None:
        """Return the memory to what the bundle taught; the stream itself continues where it is.

        If the stream began at zeros, or the bundle taught nothing, the memory is empty then.
        """
        forget_all(self._stream)

    # Copies, and the end.

    @exclusive
    def checkpoint(self) -> Snapshot:
        """Remember this moment, to return to with :meth:`rollback`.

        It takes a copy of the state, whose size never changes.
        """
        mark = self._stream.snapshot()  # settles the generation too
        generation = None if self._generation is None else self._generation.snapshot()
        return dataclasses.replace(mark, generation=generation)

    @exclusive
    def rollback(self, mark: Snapshot) -> None:
        """Return to a moment: what was read or written since is neither remembered nor learnt.

        Args:
            mark: What :meth:`checkpoint` returned, here or in another session of the model, on
                any engine.

        Raises:
            UsageError: It is of another model.
        """
        self._stream.check_snapshot(mark)
        generation = None
        if mark.generation is not None:
            generation = Generation.from_snapshot(
                mark.generation, self.model.tokenizer, self._stream.history.seen
            )
        self._stream.restore(mark)
        self._generation = generation

    @exclusive
    def fork(self) -> Session:
        """A twin that continues from here on its own."""
        twin = Session(self.model, self.learn_mode, self.memory, self.taught)
        twin.rollback(self.checkpoint())
        return twin

    @exclusive
    def reset(self) -> None:
        """Start over, with what the bundle taught if the stream began so; else, empty."""
        self._stream.reset()
        self._generation = None

    @exclusive
    def save(self, path: str | Path) -> None:
        """Write the stream to a file, which :meth:`rillet.runtime.Model.restore` reads.

        The file is written atomically: an interrupted save leaves the old one whole.

        Args:
            path: The file.
        """
        from .saved_state import SavedStream, save_stream

        file = as_path(path)
        stream = SavedStream(self.learn_mode, self.memory, self.taught, self.checkpoint())
        save_stream(self.model, stream, file)

    @exclusive
    def lend(
        self, params: SamplingParams | None, sampling: dict[str, Any]
    ) -> tuple[Stream, Generation]:
        """Begin a generation for a batch to run, and hand it the stream.

        Args:
            params: How to sample; the bundle's defaults when absent.
            sampling: Fields of :class:`SamplingParams` to change.

        Returns:
            The stream, started, and the generation.

        Raises:
            UsageError: The session is closed, or lent already; an option can never work.
        """
        generation = self._begin(params, sampling)
        self._stream.start()
        return self._stream, generation

    @exclusive
    def close(self) -> None:
        """Release the state; the session cannot be used any more."""
        self._stream.close()
        self._generation = None

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None or not self._writer.stream.is_lent:  # a refusal would hide the exception
            self.close()


def _pieces(text: str | Iterable[str]) -> Iterable[str]:
    return [text] if isinstance(text, str) else text

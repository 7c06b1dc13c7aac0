"""Generating with the generating graph: many tokens for one call of the engine."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ..engines.base import EngineState
from ..errors import UsageError
from ..sampling.stats import GenerationStats
from ..tokenizer import shown
from .generation import Draw, Generation
from .stream import Stream

__all__ = ["generate_in_graph"]

_TOKENS = 32
"""Tokens a call: more gain nothing, and a stop string would waste more of them."""


def generate_in_graph(
    stream: Stream, generation: Generation, on_text: Callable[[str], object] | None
) -> str:
    """Generate a text, the same for the same seed as token by token.

    Tokens are drawn inside the graph, with random numbers from the generation's own sampler. If
    a stop string ends the text in the middle of a call, the call is repeated for just the tokens
    that count: the stream then stands where single steps would have left it.

    Args:
        stream: The stream.
        generation: The generation.
        on_text: Called with each piece; it must leave the stream alone.

    Returns:
        The text; without ``on_text``, the generation keeps it too, as
        :meth:`.TextStream.keep_all` does.

    Raises:
        UsageError: An option needs the host's sampler.
        BundleError: The bundle has no generating graph.
    """
    graph = _GraphCalls(stream, generation)
    if generation.finish_reason is None:
        stream.start()
    pieces: list[str] = []
    began, before, first = time.perf_counter(), generation.count, None
    while generation.finish_reason is None:
        graph.call()
        first = first or time.perf_counter() - began
        while on_text is not None and generation.kept:
            waiting, *generation.kept = generation.kept
            pieces.append(shown(waiting))
            on_text(pieces[-1])
    seconds = time.perf_counter() - began
    stream.model.report(
        GenerationStats(generation.count - before, first, seconds, generation.finish_reason)
    )
    return "".join([*pieces, *map(shown, generation.kept)])


class _GraphCalls:
    """Calls of the generating graph for one generation."""

    def __init__(self, stream: Stream, generation: Generation) -> None:
        self._stream, self._generation = stream, generation
        self._generator = stream.model.graph_generator
        _check_options(generation, self._generator.knows_min_p)

    def call(self) -> None:
        """Draw and read tokens with one call, and keep their text; all of it, or nothing.

        Raises:
            EngineError: The engine failed; nothing has changed.
        """
        undo, snapshot = self._generation.undo_point(), self._stream.snapshot()
        try:
            texts = [text for text in self._call(snapshot.state) if text]
            self._generation.kept += texts  # the last thing: nothing undoes it
        except BaseException:
            self._stream.restore(snapshot)
            undo()
            raise

    def _call(self, before: EngineState) -> list[str]:
        stream, generation = self._stream, self._generation
        count = min(_TOKENS, generation.limit - generation.count) - 1
        assert stream.logits is not None
        logits, uniforms = stream.logits[None].copy(), generation.sampler.take(count)[None]
        texts = []
        for place, token in enumerate(self._run(logits, uniforms)):
            accepted = generation.accept(Draw(token, float("nan")), stream.decode(token))
            texts.append(accepted.text)
            if generation.finish_reason is not None:
                # Only the engine's state and the random numbers have gone too far.
                stream.state.copy_row(0, before, 0)
                generation.sampler.rewind()
                self._run(logits, uniforms[:, :place])
                stream.read_back(token)
                return texts
            stream.history.append(token)
        # The last token is read by a step of its own, which a changed memory can repeat.
        stream.next_token(generation)
        assert generation.outbox is not None
        texts.append(generation.outbox.text)
        generation.outbox = None
        return texts

    def _run(self, logits: npt.NDArray[Any], uniforms: npt.NDArray[np.float64]) -> list[int]:
        """Draw a token for each uniform number, and read it."""
        if not uniforms.size:
            return []
        tokens, last = self._generator.generate(
            self._stream.state,
            logits,
            uniforms,
            self._generation.drawing,
            learn=self._stream.learn_written,
        )
        self._stream.logits = last[0]
        drawn: list[int] = tokens[0].tolist()
        return drawn


def _check_options(generation: Generation, knows_min_p: bool) -> None:
    """Refuse what the generator does not know."""
    params = generation.params
    used = {
        "min_p": params.min_p > 0 and not knows_min_p,
        "typical_p": params.typical_p < 1,
        "epsilon_cutoff": params.epsilon_cutoff > 0,
        "eta_cutoff": params.eta_cutoff > 0,
        "top_logprobs": params.top_logprobs > 0,
    }
    unknown = [name for name, is_used in used.items() if is_used] + params.processed
    if unknown:
        raise UsageError(
            f"{', '.join(unknown)} cannot be used inside the graph, which knows temperature, "
            "top_k, top_p, seed, limits and stops; leave out in_graph=True"
        )

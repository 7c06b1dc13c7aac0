"""Writing with the generating graph: many tokens for one call of the engine."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..engines.ort.generate_graph import GraphGenerator
from ..errors import EngineError, UsageError
from .generation import Generation
from .text_stream import GenerationStats

if TYPE_CHECKING:
    from .session import Session

__all__ = ["write_in_graph"]

_TOKENS = 32
"""Tokens a call: more brings nothing, and a stop string would throw more of them away."""


def write_in_graph(
    session: Session, generation: Generation, on_text: Callable[[str], object] | None
) -> str:
    """Write a text as :meth:`Session.generate` does, the same for the same seed.

    Tokens are drawn inside the graph, with the numbers of the session's own generator. Where a
    stop string ends the text in the middle of a call, the call is made again for the tokens
    that count: the stream is then where it would be, had it gone step by step.

    Args:
        session: The stream.
        generation: What it writes with.
        on_text: Called with each piece; it must leave the session alone.

    Returns:
        The text.

    Raises:
        UsageError: An option needs the host's sampler.
        BundleError: The bundle has no generating graph.
    """
    _check(generation)
    generator = session.model.graph_generator
    session._start()
    pieces = []
    began, before, first = time.perf_counter(), generation.count, None
    while generation.finish_reason is None:
        if generation.drawn is not None:  # its step failed, outside the graph
            shown = [session._write(generation).text]
        else:
            shown = _call(session, generation, generator)
        first = first or time.perf_counter() - began
        for text in shown:
            if text:
                pieces.append(text)
                if on_text is not None:
                    on_text(text)
    taken = time.perf_counter() - began
    session.model._report(
        GenerationStats(generation.count - before, first, taken, generation.finish_reason)
    )
    return "".join(pieces)


def _call(session: Session, generation: Generation, generator: GraphGenerator) -> list[str]:
    """Draw and read tokens with one call; return what of their text can be shown."""
    count = min(_TOKENS, generation.limit - generation.count)
    sampler = generation.sampler
    drawn = sampler.snapshot()
    # Only a stop string can end a text before its limit.
    before = session._copy() if generation.params.stop else None
    assert session._logits is not None
    logits = session._logits[None].copy()
    uniforms = _uniforms(generation, count)
    try:
        tokens, last = _draw(session, generation, generator, logits, uniforms)
    except EngineError:
        sampler.restore(drawn)
        raise
    shown = []
    for place, token in enumerate(tokens.tolist()):
        made = generation.push(token, session._decoder.push(token), float("nan"))
        session._note(token)
        shown.append(made.text)
        if generation.finish_reason is not None and place + 1 < len(tokens):
            assert before is not None
            # Nothing but the engine's state has gone too far.
            session._state.copy_row(0, before.state, 0)
            sampler.restore(drawn)
            uniforms = _uniforms(generation, place + 1)
            _, last = _draw(session, generation, generator, logits, uniforms)
            break
    session._logits = last
    return shown


def _draw(
    session: Session,
    generation: Generation,
    generator: GraphGenerator,
    logits: npt.NDArray[Any],
    uniforms: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Tokens ``[K]``, and the logits ``[V]`` after the last."""
    params = generation.params
    tokens, last = generator.generate(
        session._state,
        logits,
        uniforms,
        temperature=params.temperature,
        top_k=params.top_k,
        top_p=params.top_p,
        learn=session._learn_written,
    )
    return tokens[0], last[0]


def _uniforms(generation: Generation, count: int) -> npt.NDArray[np.float64]:
    """The numbers of the next draws; greedy choice takes none, here as on the host."""
    if generation.params.temperature == 0:
        return np.zeros((1, count))
    return np.asarray([[generation.sampler.uniform() for _ in range(count)]])


def _check(generation: Generation) -> None:
    """Refuse what the graph does not know."""
    params = generation.params
    unknown = {
        "min_p": params.min_p > 0,
        "typical_p": params.typical_p < 1,
        "top_logprobs": params.top_logprobs > 0,
        "logit_bias, bad_words, choices, regex, grammar or penalties": (
            not generation.sampler.is_plain
        ),
    }
    found = [name for name, used in unknown.items() if used]
    if found:
        raise UsageError(
            f"{', '.join(found)} cannot be used inside the graph, which knows temperature, top_k, "
            "top_p, seed and stop; leave out in_graph=True"
        )

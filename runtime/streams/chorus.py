"""Streams that write together: several tokens of each in one call of the engine.

A :class:`.Batch` steps all its rows once for a call, on any engine. Here each stream keeps a state
of its own, so that streams come and go without a copy, and an engine that draws tokens itself
writes several for each call. Whatever it cannot draw (a grammar, a penalty) is written one token
at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..engines.base import RowWriter
from ..errors import EngineError, RilletError
from .generation import GeneratedToken, Generation
from .stream import Stream

__all__ = ["Voice", "write_together"]

_NOT_FINITE = (
    "the model predicted numbers that are not finite; the stream's state is damaged: go back to an "
    "earlier one"
)


@dataclass(eq=False)
class Voice:
    """A stream that writes with others.

    Args:
        stream: The stream, started.
        generation: Its generation.
        exact: Whether the stream goes on after the generation. If not, the engine may read a few
            tokens more than the generation accepts, which is faster.

    Attributes:
        error: Why it can write no more.
    """

    stream: Stream
    generation: Generation
    exact: bool = True
    error: RilletError | None = field(default=None, init=False)

    @property
    def is_done(self) -> bool:
        """Whether it has ended, well or not."""
        return self.error is not None or self.generation.finish_reason is not None

    def reach(self, count: int) -> int:
        """How many tokens of it one call may draw, ``count`` at most."""
        if not self.exact:
            return count
        if self.generation.may_stop:
            return 1
        return min(count, self.generation.limit - self.generation.count)


def write_together(
    writer: RowWriter | None, voices: Sequence[Voice], count: int
) -> list[list[GeneratedToken]]:
    """Let each voice write up to some tokens; each gives what it would give alone, to the bit.

    Args:
        writer: What draws tokens in the engine, if it can.
        voices: Streams of one model, none of them done.
        count: Tokens of each, at most.

    Returns:
        The tokens of each. A voice that failed has its ``error``; the others are unharmed.
    """
    written: list[list[GeneratedToken]] = [[] for _ in voices]
    groups: dict[Any, list[int]] = {}
    for place, voice in enumerate(voices):
        if writer is not None and voice.generation.is_simple:
            key = (voice.generation.drawing, voice.reach(count))
            groups.setdefault(key, []).append(place)
        else:
            written[place] = _write_alone(voice, count)
    for (_, reach), places in groups.items():
        assert writer is not None
        rows = _write_alike(writer, [voices[place] for place in places], reach)
        for place, tokens in zip(places, rows, strict=True):
            written[place] = tokens
    return written


def _write_alone(voice: Voice, count: int) -> list[GeneratedToken]:
    tokens: list[GeneratedToken] = []
    try:
        while len(tokens) < count and not voice.is_done:
            voice.stream.next_token(voice.generation)
            token, voice.generation.outbox = voice.generation.outbox, None
            assert token is not None
            tokens.append(token)
    except RilletError as error:
        voice.error = error
    return tokens


def _write_alike(
    writer: RowWriter, voices: list[Voice], count: int
) -> Iterable[list[GeneratedToken]]:
    """Write the same number of tokens of voices that draw alike."""
    logits = np.stack([_logits(voice) for voice in voices])
    uniforms = np.stack([voice.generation.sampler.take(count) for voice in voices], axis=1)
    states = [voice.stream.state for voice in voices]
    learn = np.asarray([voice.stream.learn_written for voice in voices], np.float32)
    how = voices[0].generation.drawing
    drawn, logprobs, logits = writer.write_rows(states, logits, uniforms, how, learn)
    sound = np.isfinite(logits).all(axis=1).tolist()
    columns = zip(voices, drawn.T.tolist(), logprobs.T.tolist(), logits, sound, strict=True)
    return [_accept(*column, fewer=len(drawn) < count) for column in columns]


def _accept(
    voice: Voice,
    tokens: list[int],
    logprobs: list[float],
    logits: npt.NDArray[Any],
    is_sound: bool,
    fewer: bool,
) -> list[GeneratedToken]:
    """Make what the engine has drawn and read part of a voice's text."""
    if not is_sound:
        voice.error = EngineError(_NOT_FINITE)
        return []
    stream, generation = voice.stream, voice.generation
    left = generation.limit - generation.count
    written = generation.accept_all(
        tokens[:left], logprobs[:left], map(stream.decode, tokens[:left])
    )
    if fewer or len(written) < len(tokens):
        generation.sampler.rewind()
    # Read beyond the end, the state is of no use, and nobody will use it.
    stream.adopt(stream.state, tokens, logits, stream.pending)
    return written


def _logits(voice: Voice) -> npt.NDArray[Any]:
    assert voice.stream.logits is not None
    return voice.stream.logits

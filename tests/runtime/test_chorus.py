"""Streams that write together give what each gives alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rillet.runtime import Model, load
from rillet.runtime.engines.base import RowWriter
from rillet.runtime.streams.chorus import Voice, write_together
from rillet.runtime.streams.session import Session
from support.server import NANO

KINDS: list[dict[str, Any]] = [
    {},
    {"temperature": 0},
    {"stop": ["\n\n", "the"]},
    {"top_p": 0.8, "top_k": 20},
    {"frequency_penalty": 0.4},
    {"top_logprobs": 2, "stop": ["a"]},
    {"stop_token_ids": [1, 39]},
    {"stop_token_ids": [1], "include_stop": True, "min_new_tokens": 9},
]


@pytest.fixture(scope="module")
def model() -> Model:
    return load(NANO)


def options(number: int) -> dict[str, Any]:
    return {"seed": number, "max_new_tokens": 3 * number, **KINDS[number % len(KINDS)]}


def begun(model: Model, number: int, exact: bool) -> tuple[Session, Voice]:
    session = model.session("all" if number % 4 == 1 else "read")
    session.feed("ROMEO:" * (1 + number % 3))
    stream, generation = session.lend(model.sampling(**options(number)), {})
    return session, Voice(stream, generation, exact)


@pytest.mark.parametrize("count", [1, 4, 7])
@pytest.mark.parametrize("exact", [True, False])
def test_each_writes_what_it_writes_alone(model: Model, count: int, exact: bool) -> None:
    writer = model.drafter
    assert isinstance(writer, RowWriter)
    singers = [begun(model, number, exact) for number in range(1, 30)]
    texts = [""] * len(singers)
    live = [place for place, (_, voice) in enumerate(singers) if not voice.is_done]
    while live:
        rows = write_together(writer, [singers[place][1] for place in live], count)
        for place, tokens in zip(live, rows, strict=True):
            assert 1 <= len(tokens) <= count
            texts[place] += "".join(token.text for token in tokens)
        live = [place for place in live if not singers[place][1].is_done]
    for number, (session, voice), text in zip(range(1, 30), singers, texts, strict=True):
        alone = model.session("all" if number % 4 == 1 else "read")
        alone.feed("ROMEO:" * (1 + number % 3))
        assert text == alone.generate(**options(number))
        assert voice.generation.finish_reason == alone.finish_reason
        if exact:  # and the stream goes on as one that wrote alone
            assert session.position == alone.position
            assert session.generate(seed=1) == alone.generate(seed=1)


def test_damage_to_one_leaves_the_others_alone(model: Model) -> None:
    """A state that is not finite ends its own text, and is told apart."""
    writer = model.drafter
    assert isinstance(writer, RowWriter)
    voices = [begun(model, 6 * number, False)[1] for number in range(4, 8)]
    state = voices[2].stream.state
    values = state.read()
    values["wave_buffer"][...] = np.nan
    state.write(values)
    texts = [""] * 4
    live = list(range(4))
    while live:
        rows = write_together(writer, [voices[place] for place in live], 4)
        for place, tokens in zip(live, rows, strict=True):
            texts[place] += "".join(token.text for token in tokens)
        live = [place for place in live if not voices[place].is_done]
    assert "not finite" in str(voices[2].error)
    for place in (0, 1, 3):
        alone = model.session()
        number = 6 * (4 + place)
        alone.feed("ROMEO:" * (1 + number % 3))
        assert voices[place].error is None
        assert texts[place] == alone.generate(**options(number))


def test_a_voice_that_can_write_nothing_has_an_error(model: Model) -> None:
    every = dict.fromkeys(range(model.vocab_size), float("-inf"))
    session = model.session()
    stream, generation = session.lend(model.sampling(logit_bias=every), {})
    voice, other = Voice(stream, generation), begun(model, 6, True)[1]
    rows = write_together(None, [voice, other], 3)
    assert "forbid every possible next token" in str(voice.error)
    assert (len(rows[0]), len(rows[1])) == (0, 3)

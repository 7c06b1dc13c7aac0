"""Beam search: exhaustive with enough beams, greedy with a single one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rillet.runtime import Model, UsageError


@given(prompt=st.text("The staemn", max_size=12), count=st.integers(1, 20))
def test_one_beam_is_greedy(small_model: Model, prompt: str, count: int) -> None:
    session = small_model.session()
    session.feed(prompt)
    (beam,) = session.beam_search(1, max_new_tokens=count)
    assert beam.text == session.fork().generate(temperature=0, max_new_tokens=count)


def logprob_of(model: Model, prompt: str, tokens: tuple[int, ...]) -> float:
    session = model.session()
    session.feed(prompt)
    total = 0.0
    for token in tokens:
        assert session.logits is not None
        total += float(session.logits[token])
        session.step(token)
    return total


def test_enough_beams_find_the_best_texts(small_model: Model) -> None:
    session = small_model.session()
    session.feed("The ")
    vocab = small_model.vocab_size
    beams = session.beam_search(vocab, max_new_tokens=2)
    first = session.logits
    assert first is not None
    totals = {}
    for token in range(vocab):
        with session.fork() as twin:
            after = twin.step(token)
            for second, value in enumerate(after):
                totals[token, second] = float(first[token] + value)
    best = sorted(totals, key=lambda pair: -totals[pair])[:10]
    assert [beam.tokens for beam in beams[:10]] == best
    assert session.position == 4


@given(width=st.integers(2, 6), count=st.integers(1, 12))
def test_a_beams_scores_match_its_tokens(small_model: Model, width: int, count: int) -> None:
    session = small_model.session()
    session.feed("A statement ")
    beams = session.beam_search(width, max_new_tokens=count)
    assert len(beams) == width
    scores = [beam.score for beam in beams]
    assert scores == sorted(scores, reverse=True)
    assert len({beam.tokens for beam in beams}) == width
    for beam in beams:
        assert beam.logprob == pytest.approx(
            logprob_of(small_model, "A statement ", beam.tokens), abs=1e-4
        )
        assert beam.score == pytest.approx(beam.logprob / len(beam.tokens))


def test_beams_end_at_stop_strings(small_model: Model) -> None:
    session = small_model.session()
    session.feed("The ")
    beams = session.beam_search(4, max_new_tokens=25, stop=[" ", "e"])
    assert beams
    for beam in beams:
        written = small_model.tokenizer.decode(list(beam.tokens))
        cut = min((written.find(s) for s in " e" if s in written), default=len(written))
        assert beam.text == written[:cut]
        assert cut >= len(written) - 1


def test_invalid_options_are_refused(small_model: Model) -> None:
    session = small_model.session()
    for options, message in (
        ({"beams": 0}, "beams is 0"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"length_penalty": float("nan")}, "length_penalty is nan"),
        ({"stop": [""]}, "stop has the entry ''"),
    ):
        with pytest.raises(UsageError, match=message):
            session.beam_search(**options)  # type: ignore[arg-type]

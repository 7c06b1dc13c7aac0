"""Batches: streams stepped together give the results of each stream stepped alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rillet.runtime import Model, Session, UsageError

PROMPTS = ["The ", "In a statement", "x", "import sys", "", "names are names are names"]
TOLERANCE = 1e-5


@given(
    lengths=st.lists(st.integers(0, 25), min_size=1, max_size=7),
    starts=st.lists(st.integers(0, 10), min_size=7, max_size=7),
    learn=st.sampled_from(["read", "all"]),
)
def test_a_batch_equals_its_sessions_alone(
    small_model: Model, lengths: list[int], starts: list[int], learn: str
) -> None:
    """Sessions join and leave at different steps; texts are equal, states within 1e-5."""
    texts: dict[Session, str] = {}
    with small_model.batch() as batch:
        for step in range(40):
            for index, length in enumerate(lengths):
                if starts[index] == step:
                    session = small_model.session(learn)
                    session.feed(PROMPTS[index % len(PROMPTS)])
                    texts[session] = ""
                    batch.join(session, max_new_tokens=length, seed=index)
            for session, token in batch.write().items():
                texts[session] += token.text
        assert len(batch) == 0
    order = sorted(range(len(lengths)), key=lambda index: (starts[index], index))
    for index, (session, text) in zip(order, texts.items(), strict=True):
        alone = small_model.session(learn)
        alone.feed(PROMPTS[index % len(PROMPTS)])
        assert text == alone.generate(max_new_tokens=lengths[index], seed=index)
        if alone.logits is None:
            continue  # it read nothing and wrote nothing
        assert session.position == alone.position
        np.testing.assert_allclose(session.logits, alone.logits, atol=TOLERANCE)
        expected = alone.state
        for name, value in session.state.items():
            np.testing.assert_allclose(value, expected[name], atol=TOLERANCE, err_msg=name)


SAMPLING: list[dict[str, Any]] = [
    {},
    {"temperature": 0.0},
    {"top_p": 0.8, "top_k": 9},
    {"repetition_penalty": 1.2},
    {"stop": ["e"]},
    {"bad_words": ["th"], "min_p": 0.02},
    {"choices": ["name", "statement"]},
    {"top_logprobs": 2},
]


@given(options=st.lists(st.sampled_from(SAMPLING), min_size=2, max_size=6))
def test_each_session_keeps_its_sampling_options(
    small_model: Model, options: list[dict[str, Any]]
) -> None:
    batch = small_model.batch()
    texts: dict[Session, str] = {}
    for index, own in enumerate(options):
        session = small_model.session()
        session.feed("The ")
        batch.join(session, seed=index, max_new_tokens=20, **own)
        texts[session] = ""
    own_options = dict(zip(texts, options, strict=True))
    while len(batch):
        for session, token in batch.write().items():
            texts[session] += token.text
            assert len(token.top) == own_options[session].get("top_logprobs", 0)
    for index, (own, text) in enumerate(zip(options, texts.values(), strict=True)):
        assert text == small_model.generate("The ", seed=index, max_new_tokens=20, **own)


def test_generate_takes_several_prompts(small_model: Model) -> None:
    with small_model.batch() as batch:
        texts = batch.generate(PROMPTS, max_new_tokens=30, seed=4)
    for index, (prompt, text) in enumerate(zip(PROMPTS, texts, strict=True)):
        assert text == small_model.generate(prompt, max_new_tokens=30, seed=4 + index)


def test_step_reads_given_tokens(small_model: Model) -> None:
    sessions = [small_model.session() for _ in range(3)]
    batch = small_model.batch()
    for session in sessions:
        batch.join(session)
    for step in range(4):
        logits = batch.step(dict.fromkeys(sessions, 5 + step))
    alone = small_model.session()
    alone.feed_tokens([small_model.start_token])
    for step in range(4):
        expected = alone.step(5 + step)
    for session in sessions:
        np.testing.assert_allclose(logits[session], expected, atol=TOLERANCE)
    with pytest.raises(UsageError, match="give a token for each session"):
        batch.step({sessions[0]: 1})
    with pytest.raises(UsageError, match="tokens must lie between"):
        batch.step(dict.fromkeys(sessions, 10_000))


def test_a_session_that_leaves_resumes_alone(small_model: Model) -> None:
    """It keeps its options, its random numbers, and the text it holds back."""
    session = small_model.session()
    session.feed("The ")
    batch = small_model.batch()
    batch.join(session, max_new_tokens=40, seed=3, stop=["zzz"])
    text = "".join(batch.write()[session].text for _ in range(15))
    batch.leave(session)
    text += "".join(session.resume())
    assert text == small_model.generate("The ", max_new_tokens=40, seed=3, stop=["zzz"])


def test_a_session_in_a_batch_cannot_be_used_directly(small_model: Model) -> None:
    session, batch = small_model.session(), small_model.batch()
    batch.join(session)
    assert session in batch
    assert list(batch) == [session]
    for use in (
        lambda: session.feed("The"),
        session.fork,
        session.close,
        lambda: batch.join(session),
        lambda: small_model.batch().join(session),
    ):
        with pytest.raises(UsageError, match=r"is in a batch; take it out with batch\.leave"):
            use()
    assert session.logits is not None
    batch.leave(session)
    session.feed("The")
    with pytest.raises(UsageError, match="is not in this batch"):
        batch.leave(session)
    session.close()
    with pytest.raises(UsageError, match="is closed"):
        batch.join(session)
    assert batch.write() == {}


def test_a_session_of_another_model_cannot_join(small_model: Model) -> None:
    other = Model(small_model.bundle, small_model.engine)
    with pytest.raises(UsageError, match="another model than the batch"):
        small_model.batch().join(other.session())


def test_a_large_batch_is_stepped_in_several_calls(small_model: Model) -> None:
    """The number of rows changes as sessions leave."""
    count = 37
    sessions = [small_model.session() for _ in range(count)]
    texts = dict.fromkeys(sessions, "")
    with small_model.batch() as batch:
        for index, session in enumerate(sessions):
            session.feed(PROMPTS[index % len(PROMPTS)])
            batch.join(session, max_new_tokens=3 + index % 5, seed=index)
        while len(batch):
            for session, token in batch.write().items():
                texts[session] += token.text
    for index, session in enumerate(sessions):
        alone = small_model.session()
        alone.feed(PROMPTS[index % len(PROMPTS)])
        assert texts[session] == alone.generate(max_new_tokens=3 + index % 5, seed=index)
        np.testing.assert_allclose(session.logits, alone.logits, atol=TOLERANCE)

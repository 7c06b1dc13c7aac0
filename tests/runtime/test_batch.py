"""Many streams stepped together: the results of each alone, whoever comes and goes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rillet.runtime import Model, Session, UsageError

PROMPTS = ["The ", "In a statement", "x", "import sys", "", "names are names are names"]
TOLERANCE = 1e-5


def alone(model: Model, index: int, learn: str, count: int) -> Session:
    session = model.session(learn)
    session.feed(PROMPTS[index % len(PROMPTS)])
    session.generate(max_new_tokens=count, seed=index)
    return session


@given(
    lengths=st.lists(st.integers(0, 25), min_size=1, max_size=7),
    starts=st.lists(st.integers(0, 10), min_size=7, max_size=7),
    learn=st.sampled_from(["read", "all"]),
)
def test_results_are_those_of_each_alone(
    small_model: Model, lengths: list[int], starts: list[int], learn: str
) -> None:
    """Each joins and leaves at a step of its own; texts are equal, states within 1e-5."""
    texts: dict[Session, str] = {}
    with small_model.batch() as batch:
        for step in range(40):
            for index, length in enumerate(lengths):
                if starts[index] == step:
                    session = small_model.session(learn)
                    session.feed(PROMPTS[index % len(PROMPTS)])
                    texts[session] = ""
                    batch.join(session, max_new_tokens=length, seed=index)
            for session, made in batch.write().items():
                texts[session] += made.text
        assert len(batch) == 0
    order = sorted(range(len(lengths)), key=lambda index: (starts[index], index))
    for index, (session, text) in zip(order, texts.items(), strict=True):
        same = small_model.session(learn)
        same.feed(PROMPTS[index % len(PROMPTS)])
        assert text == same.generate(max_new_tokens=lengths[index], seed=index)
        if same.logits is None:
            continue  # it wrote nothing and read nothing
        assert session.position == same.position
        np.testing.assert_allclose(session.logits, same.logits, atol=TOLERANCE)
        values = same.state
        for name, value in session.state.items():
            np.testing.assert_allclose(value, values[name], atol=TOLERANCE, err_msg=name)


@given(options=st.lists(st.sampled_from([
    {}, {"temperature": 0.0}, {"top_p": 0.8, "top_k": 9}, {"repetition_penalty": 1.2},
    {"stop": ["e"]}, {"bad_words": ["th"], "min_p": 0.02}, {"choices": ["name", "statement"]},
    {"top_logprobs": 2},
]), min_size=2, max_size=6))  # fmt: skip
def test_each_samples_in_its_own_way(small_model: Model, options: list[dict[str, object]]) -> None:
    batch = small_model.batch()
    texts: dict[Session, str] = {}
    for index, mine in enumerate(options):
        session = small_model.session()
        session.feed("The ")
        batch.join(session, seed=index, max_new_tokens=20, **mine)
        texts[session] = ""
    while len(batch):
        for session, made in batch.write().items():
            texts[session] += made.text
            wanted = next(o for o, s in zip(options, texts, strict=True) if s is session)
            assert len(made.top) == wanted.get("top_logprobs", 0)
    for index, (mine, text) in enumerate(zip(options, texts.values(), strict=True)):
        assert text == small_model.generate("The ", seed=index, max_new_tokens=20, **mine)


def test_prompts_at_once(small_model: Model) -> None:
    with small_model.batch() as batch:
        texts = batch.generate(PROMPTS, max_new_tokens=30, seed=4)
    for index, (prompt, text) in enumerate(zip(PROMPTS, texts, strict=True)):
        assert text == small_model.generate(prompt, max_new_tokens=30, seed=4 + index)


def test_tokens_chosen_elsewhere(small_model: Model) -> None:
    sessions = [small_model.session() for _ in range(3)]
    batch = small_model.batch()
    for session in sessions:
        batch.join(session)
    for step in range(4):
        logits = batch.step(dict.fromkeys(sessions, 5 + step))
    same = small_model.session()
    same.feed_tokens([small_model.start_token])
    for step in range(4):
        wanted = same.step(5 + step)
    for session in sessions:
        np.testing.assert_allclose(logits[session], wanted, atol=TOLERANCE)
    with pytest.raises(UsageError, match="give a token for each session"):
        batch.step({sessions[0]: 1})
    with pytest.raises(UsageError, match="tokens must lie between"):
        batch.step(dict.fromkeys(sessions, 10_000))


def test_what_is_held_back_goes_on_alone(small_model: Model) -> None:
    """A session that leaves early resumes with its options and random numbers."""
    session = small_model.session()
    session.feed("The ")
    batch = small_model.batch()
    batch.join(session, max_new_tokens=40, seed=3, stop=["zzz"])
    text = "".join(batch.write()[session].text for _ in range(15))
    batch.leave(session)
    text += "".join(session.resume())
    assert text == small_model.generate("The ", max_new_tokens=40, seed=3, stop=["zzz"])


def test_a_session_in_a_batch_says_where_it_is(small_model: Model) -> None:
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


def test_a_session_of_another_model(small_model: Model) -> None:
    other = Model(small_model.bundle, small_model.engine)
    with pytest.raises(UsageError, match="another model than the batch"):
        small_model.batch().join(other.session())


def test_more_rows_than_one_call_steps(small_model: Model) -> None:
    """A batch of many goes through in several calls; rows that leave change their number."""
    count = 37
    sessions = [small_model.session() for _ in range(count)]
    texts = dict.fromkeys(sessions, "")
    with small_model.batch() as batch:
        for index, session in enumerate(sessions):
            session.feed(PROMPTS[index % len(PROMPTS)])
            batch.join(session, max_new_tokens=3 + index % 5, seed=index)
        while len(batch):
            for session, made in batch.write().items():
                texts[session] += made.text
    for index, session in enumerate(sessions):
        same = alone(small_model, index, "read", 0)
        assert texts[session] == same.generate(max_new_tokens=3 + index % 5, seed=index)
        np.testing.assert_allclose(session.logits, same.logits, atol=TOLERANCE)

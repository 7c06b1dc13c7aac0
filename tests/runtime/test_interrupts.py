"""Wherever an interrupt strikes, a stream is before a token or after it, and no text is lost."""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rillet.runtime import Batch, GeneratedToken, Model, SamplingParams, Session, load
from rillet.runtime.engines.base import ProviderChoice

NANO = Path(__file__).parents[2] / "models" / "shakespeare-nano"
PROMPT = "ROMEO:\n"

pytestmark = pytest.mark.skipif(
    not hasattr(signal, "setitimer"), reason="this system has no interval timers"
)


@pytest.fixture(scope="module")
def model() -> Model:
    return load(NANO)


@pytest.fixture
def chance() -> Iterator[random.Random]:
    """Random moments; meanwhile an alarm raises KeyboardInterrupt."""
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    yield random.Random(0)  # noqa: S311 - repeatable
    signal.signal(signal.SIGALRM, before)


def is_interrupted(action: Callable[[], object], seconds: float) -> bool:
    """Run an action; say whether the alarm cut it off, once, after so many seconds."""
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        action()
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        return True
    return False


class Moments:
    """When to interrupt an action, so that half the alarms or so come before its end.

    A figure from one timed run would not hold on a machine whose load changes: the range follows
    what the alarms have hit.
    """

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.seconds = 1e-2

    def strike(self, action: Callable[[], object]) -> bool:
        """Run an action under an alarm; say whether that cut it off."""
        interrupted = is_interrupted(action, moment(self.chance, self.seconds))
        self.seconds *= 1.1 if interrupted else 1 / 1.1
        return interrupted


def fed(model: Model) -> Session:
    session = model.session()
    session.feed(PROMPT)
    return session


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stop": ["zzzz"], "repetition_penalty": 1.2, "frequency_penalty": 0.1},
        {"bad_words": ["thou", "the "], "top_k": 20},
    ],
    ids=["plain", "penalties and stop strings", "bad words"],
)
def test_an_interrupted_text_resumes_as_if_nothing_had_happened(
    model: Model, chance: random.Random, options: dict[str, object]
) -> None:
    count, interrupted, moments = 60, 0, Moments(chance)
    whole = fed(model).generate(max_new_tokens=count, seed=5, **options)
    for _ in range(100):
        session, pieces = fed(model), []
        stream = session.stream(max_new_tokens=count, seed=5, **options)
        interrupted += moments.strike(lambda s=stream, p=pieces: take(s, p))
        pieces.extend(session.resume())
        assert "".join(pieces) == whole
        assert session.position == len(PROMPT) + count
    assert interrupted > 20


@pytest.mark.parametrize(
    ("provider", "in_graph", "options"),
    [
        ("auto", False, {}),
        ("auto", False, {"stop": ["zzzz"], "repetition_penalty": 1.2}),
        ("cpu", True, {}),
    ],
    ids=["plain", "penalties and stop strings", "in the graph"],
)
def test_a_text_whose_call_was_interrupted_waits_for_resume_and_in_the_file(
    chance: random.Random,
    provider: ProviderChoice,
    in_graph: bool,
    options: dict[str, Any],
    tmp_path: Path,
) -> None:
    """`generate` returns its text at the end: what it has written by then must not be lost."""
    model, params = load(NANO, provider), SamplingParams(max_new_tokens=60, seed=5, **options)
    whole, outcomes, moments = fed(model).generate(params), set(), Moments(chance)
    for attempt in range(100):
        session, returned = fed(model), []

        def write(session: Session = session, returned: list[str] = returned) -> None:
            # No call comes after it. With `**options`, or in Python 3.10, the interpreter may
            # raise between the return and the list, where nobody can keep the text.
            returned += [session.generate(params, in_graph=in_graph)]

        moments.strike(write)
        if not session.can_resume:
            continue
        session.save(tmp_path / "state")
        for one in (model.restore(tmp_path / "state"), session.fork(), session):
            assert "".join([*returned, *one.resume()]) == whole, attempt
            assert "".join(one.resume()) == ""
        assert session.position == len(PROMPT) + 60
        outcomes.add(bool(returned))
    assert outcomes == {True, False}


def take(stream: Iterator[str], pieces: list[str]) -> None:
    """Read a stream; an interrupt may come between any two pieces."""
    for piece in stream:
        pieces.append(piece)


def moment(chance: random.Random, longest: float) -> float:
    return chance.uniform(1e-5, longest)


def test_an_interrupted_feed_has_read_all_or_nothing(model: Model, chance: random.Random) -> None:
    text = "But soft, what light through yonder window breaks? " * 8
    before, whole = fed(model).state, fed(model)
    whole.feed(text)
    after, outcomes = whole.state, set()
    for _ in range(150):
        session = fed(model)
        is_interrupted(lambda it=session: it.feed(text), moment(chance, 1.5e-2))
        read = session.position - len(PROMPT)
        assert read in (0, len(text))
        outcomes.add(read)
        expected = after if read else before
        for name, value in session.state.items():
            np.testing.assert_array_equal(value, expected[name])
    assert 0 in outcomes


def test_an_interrupted_batch_loses_no_text(model: Model, chance: random.Random) -> None:
    count = 25
    expected = [fed(model).generate(max_new_tokens=count, seed=seed) for seed in range(3)]
    for _ in range(60):
        batch, sessions, log = model.batch(), [fed(model) for _ in range(3)], []
        for seed, session in enumerate(sessions):
            batch.join(session, max_new_tokens=count, seed=seed)

        def write_all(batch: Batch = batch, log: list[dict[Session, GeneratedToken]] = log) -> None:
            while not log or log[-1]:
                log.append(batch.write())

        if is_interrupted(write_all, moment(chance, 1.2e-2)):
            write_all()
        texts = ["".join(one[it].text for one in log if it in one) for it in sessions]
        assert texts == expected
        assert not len(batch)


def test_an_interrupted_rollback_returns_whole(model: Model, chance: random.Random) -> None:
    session = fed(model)
    mark = session.checkpoint()
    expected = fed(model).generate(max_new_tokens=9, seed=1)
    for _ in range(100):
        session.feed("Something else entirely.")

        def roll_back_often() -> None:
            while True:
                session.rollback(mark)

        assert is_interrupted(roll_back_often, moment(chance, 2e-4))
        assert session.position in (mark.position, mark.position + 24)
        if session.position == mark.position:
            assert session.fork().generate(max_new_tokens=9, seed=1) == expected
        session.rollback(mark)


def test_a_cancelled_reader_leaves_no_gap_and_a_usable_stream(model: Model) -> None:
    count = 2_000
    whole = fed(model).generate(max_new_tokens=count, seed=5)

    async def read(session: Session, seconds: float) -> str:
        pieces: list[str] = []

        async def consume() -> None:
            async for piece in session.stream(max_new_tokens=count, seed=5):
                pieces.append(piece)

        task = asyncio.ensure_future(consume())
        await asyncio.wait([task], timeout=seconds)
        task.cancel()
        await asyncio.wait([task])
        return "".join(pieces)

    for attempt in range(40):
        session = fed(model)
        begun = asyncio.run(read(session, 0.002 + 0.0011 * attempt))
        assert whole.startswith(begun)
        rest = "".join(itertools.islice(session.resume(), 30))
        assert whole.startswith(begun + rest)
        assert rest or begun == whole  # a fast machine was done before


def test_text_that_an_interrupt_left_is_saved_with_the_stream(
    model: Model, chance: random.Random, tmp_path: Path
) -> None:
    whole = fed(model).generate(max_new_tokens=40, seed=5)
    for attempt in range(25):
        session, pieces = fed(model), []
        stream = session.stream(max_new_tokens=40, seed=5)
        is_interrupted(lambda s=stream, p=pieces: take(s, p), moment(chance, 5e-3))
        session.save(tmp_path / f"{attempt}.state")
        restored = model.restore(tmp_path / f"{attempt}.state")
        assert "".join([*pieces, *restored.resume()]) == whole


def test_an_interrupted_join_or_leave_changes_no_other_text(
    model: Model, chance: random.Random
) -> None:
    expected = fed(model).generate(max_new_tokens=8, seed=1)
    for _ in range(150):
        batch, first, others = model.batch(), fed(model), [fed(model) for _ in range(4)]
        batch.join(first, max_new_tokens=8, seed=1)

        def come_and_go(batch: Batch = batch, others: list[Session] = others) -> None:
            for other in others:
                batch.join(other, max_new_tokens=8, seed=2)
            for other in others:
                batch.leave(other)

        is_interrupted(come_and_go, moment(chance, 1.5e-3))
        for other in list(batch):
            if other is not first:
                batch.leave(other)
        assert list(batch) == [first]
        text = ""
        while len(batch):
            text += batch.write()[first].text
        assert text == expected
        for other in others:
            other.feed("x")  # each is its own again

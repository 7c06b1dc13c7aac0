"""Tokens drawn ahead change nothing that anybody can see.

Random programs run on two sessions of the native engine: one draws ahead, the other one token at a
time. Whatever the program reads, writes or looks at, both give the same, to the bit.
``RILLET_PROGRAMS`` sets how many are tried, ``RILLET_PROGRAM`` where they begin.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rillet.runtime import EngineError, Model, Session, TextStream, UsageError, load
from rillet.runtime.engines.base import Drafter
from rillet.runtime.engines.native.engine import NativeEngine
from rillet.runtime.streams.stream import Stream
from rillet.train import Checkpoint
from support.native import needs_native, weights_bundle

pytestmark = [needs_native, pytest.mark.usefixtures("alarm")]

PROGRAMS = int(os.environ.get("RILLET_PROGRAMS", "40"))
FIRST = int(os.environ.get("RILLET_PROGRAM", "0"))
NANO = Path(__file__).parents[2] / "models" / "shakespeare-nano"
TEXTS = ["The ", "names are names", "x", "In a statement of the form: "]
OPTIONS: list[dict[str, Any]] = [
    {},
    {},
    {"temperature": 0},
    {"temperature": 1.3, "top_k": 12},
    {"top_p": 0.8, "min_p": 0.02},
    {"stop": ["e ", "th"]},
    {"stop": "zzz"},
    {"stop": "a", "temperature": 0.2},
    {"seed": 2**90},
    {"repetition_penalty": 1.2},
    {"typical_p": 0.9},
    {"top_logprobs": 3},
    {"stop_token_ids": [3, 40], "include_stop": True},
    {"stop": ["e "], "min_new_tokens": 25},
    {"stop": "a", "include_stop": True, "temperature": 0.2},
    {"epsilon_cutoff": 0.02},
]

Pair = tuple[Model, Model]


@pytest.fixture(scope="module", params=["nano", "small"])
def models(
    request: pytest.FixtureRequest, small: Checkpoint, tmp_path_factory: pytest.TempPathFactory
) -> Pair:
    """One model that draws ahead, and one that does not."""
    if request.param == "nano":
        ahead, single = (load(NANO, "native", self_test=False) for _ in range(2))
    else:
        folder = tmp_path_factory.mktemp("weights")
        bundle = weights_bundle(small, folder)
        (folder / "generation_config.json").write_text("{}")
        ahead, single = (Model(bundle, NativeEngine(bundle), small.tokenizer) for _ in range(2))
    single.drafter = None
    assert isinstance(ahead.drafter, Drafter)
    return ahead, single


class Program:
    """One random program, on two sessions."""

    def __init__(self, models: Pair, number: int, folder: Path) -> None:
        self.models, self.folder = models, folder
        self.chance = random.Random(number)  # noqa: S311 - repeatable
        learn = self.chance.choice(["read", "all", "none"])
        self.sessions = [model.session(learn) for model in models]
        self.streams: list[tuple[Any, Any]] = []

    def run(self, steps: int) -> None:
        for _ in range(steps):
            action = self.chance.choice(
                [
                    *[self.take] * 12,
                    *[self.begin] * 3,
                    *(self.look, self.look, self.look_at_all),
                    *(self.generate, self.feed, self.step, self.learn, self.forget),
                    *(self.fork, self.save, self.roll_back, self.cancel, self.resume),
                    *(self.score, self.batch, self.interrupt, self.fail, self.reset),
                ]
            )
            action()
        self.look_at_all()

    def both(self, action: Callable[[Session], Any]) -> Any:
        """Do something with both sessions; what they answer must be the same."""
        answers = [outcome(functools.partial(action, session)) for session in self.sessions]
        assert answers[0] == answers[1]
        return answers[0]

    def opened(self, open_stream: Callable[[Session], Any]) -> None:
        """Open a stream of both sessions."""
        first, second = (open_stream(session) for session in self.sessions)
        self.streams = [*self.streams[-2:], (first, second)]

    # What a program does.

    def begin(self) -> None:
        options = {"seed": self.chance.randrange(100), **self.chance.choice(OPTIONS)}
        options["max_new_tokens"] = self.chance.choice([0, 1, 2, 9, 60, 400])
        kind = self.chance.choice(["text", "text", "tokens", "bytes"])
        self.opened(
            lambda it: {
                "text": it.stream,
                "tokens": it.tokens,
                "bytes": lambda **given: it.stream(**given).as_bytes(),
            }[kind](**options)
        )

    def take(self) -> None:
        """Go on in the newest stream, or in one that was left behind."""
        if self.streams:
            pair = self.chance.choice([*self.streams, self.streams[-1]])
            count = self.chance.choice([1, 1, 2, 5, 20, 90])
            taken = [outcome(lambda it=one: list(itertools.islice(it, count))) for one in pair]
            assert taken[0] == taken[1]

    def look(self) -> None:
        """At one thing."""
        name = self.chance.choice(
            ["position", "finish_reason", "stop_string", "can_resume", "last_sampling"]
        )
        self.both(lambda it: getattr(it, name))
        for first, second in self.streams:
            if hasattr(first, "stats"):
                assert first.finish_reason == second.finish_reason
                assert first.stop_string == second.stop_string
                assert first.stats.tokens == second.stats.tokens

    def look_at_all(self) -> None:
        self.both(lambda it: it.position)
        first, second = self.sessions
        if self.chance.random() < 0.5:
            np.testing.assert_array_equal(first.logits, second.logits)
        for name, value in first.state.items():
            np.testing.assert_array_equal(value, second.state[name], name)
        np.testing.assert_array_equal(first.logits, second.logits)
        self.both(lambda it: it.checkpoint().generation)

    def generate(self) -> None:
        options = {"seed": self.chance.randrange(100), **self.chance.choice(OPTIONS)}
        looks = self.chance.choice([None, None, 7])

        def run(session: Session) -> tuple[str, list[Any]]:
            seen: list[Any] = []

            def look(piece: str) -> None:
                seen.append((piece, session.position))
                if looks and len(seen) % looks == 0:
                    seen.append(session.logits.tolist())

            return session.generate(on_text=look, max_new_tokens=70, **options), seen

        self.both(run)

    def feed(self) -> None:
        text = self.chance.choice(TEXTS)
        self.both(lambda it: it.feed(text))

    def step(self) -> None:
        token = self.chance.randrange(self.models[0].vocab_size)
        self.both(lambda it: it.step(token).tolist())

    def learn(self) -> None:
        text = self.chance.choice(TEXTS)
        self.both(lambda it: it.learn(text))

    def forget(self) -> None:
        self.both(lambda it: it.forget())

    def fork(self) -> None:
        """Go on with a twin; the streams stay those of the old session, and go on too."""
        self.sessions = [session.fork() for session in self.sessions]

    def save(self) -> None:
        for place, session in enumerate(self.sessions):
            session.save(self.folder / "state")
            self.sessions[place] = self.models[place].restore(self.folder / "state")

    def roll_back(self) -> None:
        marks = [session.checkpoint() for session in self.sessions]
        self.chance.choice([self.take, self.begin, self.generate, self.feed])()
        for session, mark in zip(self.sessions, marks, strict=True):
            session.rollback(mark)

    def cancel(self) -> None:
        for pair in self.streams[-1:]:
            for stream in pair:
                if hasattr(stream, "cancel"):
                    stream.cancel()
        self.resume()

    def resume(self) -> None:
        options = self.chance.choice([{}, {}, {"temperature": 0.5}, {"stop": "i"}, {"seed": 3}])
        count = self.chance.choice([None, 30])
        if self.sessions[0].can_resume:
            self.opened(lambda it: it.resume(count, **options))

    def score(self) -> None:
        self.both(lambda it: it.score("Some text to score").nats)
        self.both(lambda it: it.samples(2, seed=1, max_new_tokens=12))

    def batch(self) -> None:
        """Write together with nobody else, and leave."""
        options = {"seed": self.chance.randrange(100), "max_new_tokens": 20}
        count = self.chance.randrange(12)

        def run(session: Session) -> list[int]:
            with session.model.batch() as batch:
                batch.join(session, **options)
                return [batch.write()[session].token for _ in range(count)]

        self.both(run)

    def interrupt(self) -> None:
        """Strike somewhere while the first session's text is taken, and take the rest."""
        if not self.streams or not hasattr(signal, "setitimer"):
            return
        first, second = self.streams[-1]
        if not isinstance(first, TextStream):
            return
        pieces: list[str] = []

        def take() -> None:
            for piece in itertools.islice(first, 60):
                pieces.append(piece)

        with contextlib.suppress(KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, self.chance.uniform(1e-5, 2e-3))
            try:
                take()
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        pieces += itertools.islice(first, 1)  # what an interrupt left in the memory is overwritten
        assert pieces == list(itertools.islice(second, len(pieces)))
        if first.finish_reason is not None:
            assert list(first) == list(second) == []

    def fail(self) -> None:
        """Let the engine fail while it draws ahead."""
        drafter, calls = self.models[0].drafter, self.chance.randrange(3)

        class Failing:
            def draft(self, *arguments: Any, **options: Any) -> Any:
                nonlocal calls
                calls -= 1
                if calls < 0:
                    raise EngineError("the device is lost, for a moment")
                return drafter.draft(*arguments, **options)

        self.models[0].drafter = Failing()
        try:
            self.take()
            self.generate()
        finally:
            self.models[0].drafter = drafter

    def reset(self) -> None:
        self.both(lambda it: it.reset())


def outcome(action: Callable[[], Any]) -> Any:
    """What an action returns, or the text of its refusal."""
    try:
        return action()
    except UsageError as error:
        return str(error)


@pytest.mark.parametrize("number", range(FIRST, FIRST + PROGRAMS))
def test_a_program_sees_no_difference(models: Pair, number: int, tmp_path: Path) -> None:
    Program(models, number, tmp_path).run(steps=40)


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads take over from each other as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_a_token_that_is_taken_while_another_thread_looks_is_taken_once(
    models: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader takes a token without the lock that the other holds."""
    ahead, alone = (model.session() for model in models)
    for session in (ahead, alone):
        session.feed("It is ")
    stream = ahead.tokens(max_new_tokens=60, seed=5)
    taken = [next(stream).token for _ in range(8)]
    assert stream.peek() is not None  # it was drawn, and waits for its reader
    adopt = Stream.adopt

    def adopt_meanwhile(*arguments: Any) -> None:
        taken.append(next(stream).token)
        adopt(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Stream, "adopt", adopt_meanwhile)
        assert ahead.logits is not None
    assert len(taken) == 9
    taken += [token.token for token in stream]
    assert taken == [token.token for token in alone.tokens(max_new_tokens=60, seed=5)]


def test_undoing_a_step_puts_no_taken_token_back(models: Pair) -> None:
    session = models[0].session()
    session.feed("It is ")
    stream = session.tokens(max_new_tokens=60, seed=5)
    assert stream.peek() is not None
    undo = stream.generation.undo_point()
    next(stream)
    undo()
    assert stream.generation.outbox is None


def test_threads_that_share_a_stream_do_not_corrupt_it(models: Pair, hasty: None) -> None:
    """Some take tokens, others look: all is refused or complete."""
    ahead, alone = (model.session() for model in models)
    for session in (ahead, alone):
        session.feed("It is ")
    stream, taken, refused = ahead.tokens(max_new_tokens=1_000_000, seed=5), [], []
    end = threading.Event()

    def take() -> None:
        while len(taken) < 800:
            try:
                taken.append(next(stream).token)
            except UsageError as error:
                refused.append(str(error))

    def look() -> None:
        while not end.wait(1e-3):
            try:
                assert len(ahead.checkpoint().recent) >= 6
            except UsageError as error:
                refused.append(str(error))

    threads = [threading.Thread(target=take) for _ in range(4)]
    looking = threading.Thread(target=look)
    for thread in (*threads, looking):
        thread.start()
    for thread in threads:
        thread.join()
    end.set()
    looking.join()
    assert all("used by another thread" in message for message in refused)
    assert ahead.position == len("It is ") + len(taken)
    expected = [token.token for token in alone.tokens(max_new_tokens=len(taken), seed=5)]
    assert sorted(taken) == sorted(expected)
    np.testing.assert_array_equal(ahead.logits, alone.logits)
    for name, value in ahead.state.items():
        np.testing.assert_array_equal(value, alone.state[name], name)


def test_threads_that_share_a_text_get_each_piece_once(models: Pair, hasty: None) -> None:
    ahead, alone = (model.session() for model in models)
    for session in (ahead, alone):
        session.feed("It is ")
    text, taken, refused = ahead.stream(max_new_tokens=1_000_000, seed=5), [], []

    def take() -> None:
        while len(taken) < 800:
            try:
                taken.append(next(text))
            except UsageError as error:
                refused.append(str(error))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all("used by another thread" in message for message in refused)
    count = ahead.position - len("It is ")
    assert sorted("".join(taken)) == sorted(alone.generate(max_new_tokens=count, seed=5))


def test_a_stream_that_nobody_looks_at_is_drawn_ahead(models: Pair) -> None:
    """Without being asked, in few calls; one that is looked at after each token is not."""
    model, _ = models
    calls, drafter = [], model.drafter

    class Counting:
        def draft(self, *arguments: Any, **options: Any) -> Any:
            calls.append(len(arguments[3]))
            return drafter.draft(*arguments, **options)

    model.drafter = Counting()
    try:
        for _ in model.stream("The ", max_new_tokens=600, seed=1):
            pass
        assert sum(calls) == 599
        assert len(calls) < 60
        calls.clear()
        session = model.session()
        session.feed("The ")
        for _ in session.stream(max_new_tokens=600, seed=1):
            assert session.logits is not None
        assert len(calls) < 5
    finally:
        model.drafter = drafter

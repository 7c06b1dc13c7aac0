"""Random programs of everything that a session can do, each step held to a plain replay.

A program feeds, generates, forks, rolls back, learns, forgets, saves, restores, joins and leaves
batches; engines fail under it and interrupts strike. Its record is the tokens that each session has
read and written. A new session that takes them one by one must stand where the program's stands.
``RILLET_PROGRAMS`` sets how many are tried, ``RILLET_PROGRAM`` where they begin.
"""

from __future__ import annotations

import copy
import os
import random
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from rillet.runtime import EngineError, Model, Session, load

PROGRAMS = int(os.environ.get("RILLET_PROGRAMS", "40"))
pytestmark = pytest.mark.usefixtures("alarm")

FIRST = int(os.environ.get("RILLET_PROGRAM", "0"))
TEXTS = ["The ", "names are names", "x", "In a statement of the form: ", "def f(x):\n    return"]
TOLERANCE = 1e-4


@dataclass
class Record:
    """A session, and what it has read and written since the start."""

    session: Session
    log: list[tuple[str, list[int]]] = field(default_factory=list)
    next_seed: int = 0


class Program:
    """One random program."""

    def __init__(self, model: Model, number: int, folder: Path) -> None:
        self.model, self.folder = model, folder
        self.chance = random.Random(number)  # noqa: S311 - repeatable
        self.learn = self.chance.choice(["read", "all", "none"])
        self.records = [self.opened()]

    def opened(self) -> Record:
        return Record(self.model.session(self.learn))

    def run(self, steps: int) -> None:
        for _ in range(steps):
            record = self.chance.choice(self.records)
            self.chance.choice(
                [
                    self.feed,
                    self.generate,
                    self.generate,
                    self.interrupt,
                    self.interrupt_text,
                    self.fail,
                    self.fork,
                    self.roll_back,
                    self.learn_text,
                    self.forget,
                    self.save,
                    self.batch,
                ]
            )(record)
            for other in self.records:
                self.check(other)

    # What a program does.

    def feed(self, record: Record) -> None:
        text = self.chance.choice(TEXTS)
        record.session.feed(text)
        record.log.append(("read", self.model.tokenizer.encode(text)))

    def options(self, record: Record) -> dict[str, object]:
        record.next_seed += 1
        options: dict[str, object] = {"seed": record.next_seed, "max_new_tokens": 12}
        options |= self.chance.choice(
            [{}, {"repetition_penalty": 1.2}, {"stop": ["e "]}, {"temperature": 0}, {"top_k": 5}]
        )
        return options

    def generate(self, record: Record) -> None:
        self.started(record)
        tokens = [token.token for token in record.session.tokens(**self.options(record))]
        record.log.append(("write", tokens))

    def interrupt(self, record: Record) -> None:
        """Strike somewhere in a generation, and resume it."""
        self.started(record)
        options, tokens = self.options(record), []
        expected = [one.token for one in self.replayed(record).tokens(**options)]
        stream = record.session.tokens(**options)

        def take() -> None:
            for token in stream:
                tokens.append(token.token)

        interrupted(take, self.chance.uniform(1e-5, 2e-3))
        take()
        assert tokens == expected
        record.log.append(("write", tokens))

    def interrupt_text(self, record: Record) -> None:
        """Strike somewhere in a call that returns a whole text, and read the rest."""
        self.started(record)
        options, texts = self.options(record), []
        expected = list(self.replayed(record).tokens(**options))

        def write() -> None:
            texts.append(record.session.generate(**options))

        interrupted(write, self.chance.uniform(1e-5, 2e-3))
        sampling = record.session.last_sampling
        if sampling is None or sampling.seed != options["seed"]:
            write()  # it had not begun
        texts.extend(record.session.resume())
        assert "".join(texts) == "".join(one.text for one in expected)
        record.log.append(("write", [one.token for one in expected]))

    def fail(self, record: Record) -> None:
        """Let the engine fail at a step of a generation, and resume it."""
        self.started(record)
        options = self.options(record)
        expected = [one.token for one in self.replayed(record).tokens(**options)]
        stream, tokens = record.session.tokens(**options), []
        failing = self.chance.randrange(4)
        while True:
            try:
                with failing_engine(self.model, failing):
                    for token in stream:
                        tokens.append(token.token)
                break
            except EngineError:
                failing = 1_000
        assert tokens == expected
        record.log.append(("write", tokens))

    def fork(self, record: Record) -> None:
        if len(self.records) < 4:
            twin = Record(record.session.fork(), copy.deepcopy(record.log), record.next_seed)
            self.records.append(twin)

    def roll_back(self, record: Record) -> None:
        mark, log = record.session.checkpoint(), copy.deepcopy(record.log)
        self.chance.choice([self.feed, self.generate, self.learn_text, self.forget])(record)
        record.session.rollback(mark)
        record.log = log

    def learn_text(self, record: Record) -> None:
        text = self.chance.choice(TEXTS)
        if record.session.learn(text):
            record.log.append(("learn", self.model.tokenizer.encode(text)))

    def forget(self, record: Record) -> None:
        record.session.forget()
        record.log.append(("forget", []))

    def save(self, record: Record) -> None:
        record.session.save(self.folder / "state")
        record.session.close()
        record.session = self.model.restore(self.folder / "state")

    def batch(self, record: Record) -> None:
        """Let all sessions write some tokens together, and leave in any order."""
        batch = self.model.batch()
        for one in self.records:
            self.started(one)
            batch.join(one.session, **self.options(one))
        written: dict[Session, list[int]] = {one.session: [] for one in self.records}
        for _ in range(self.chance.randint(1, 8)):
            for session, token in batch.write().items():
                written[session].append(token.token)
        sessions = list(batch)
        self.chance.shuffle(sessions)
        for session in sessions:
            batch.leave(session)
        for one in self.records:
            one.log.append(("write", written[one.session]))

    def started(self, record: Record) -> None:
        """What a generation reads first in a new stream."""
        if record.session.logits is None:
            record.session.feed_tokens([self.model.start_token])
            record.log.append(("read", [self.model.start_token]))

    # What it is held to.

    def replayed(self, record: Record) -> Session:
        session = self.model.session(self.learn)
        for kind, tokens in record.log:
            if kind == "read":
                session.feed_tokens(tokens)
            elif kind == "learn":
                session.learn(self.model.tokenizer.decode(tokens))
            elif kind == "forget":
                session.forget()
            else:
                for token in tokens:
                    session.step(token)
        return session

    def check(self, record: Record) -> None:
        expected = self.replayed(record)
        assert record.session.position == expected.position
        if expected.logits is None:
            assert record.session.logits is None
        else:
            np.testing.assert_allclose(record.session.logits, expected.logits, atol=TOLERANCE)
        for name, value in expected.state.items():
            np.testing.assert_allclose(record.session.state[name], value, atol=TOLERANCE)


def interrupted(action: Callable[[], object], seconds: float) -> None:
    """Run an action; an alarm may cut it off."""
    if not hasattr(signal, "setitimer"):
        return
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        action()
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        pass


class failing_engine:  # noqa: N801 - a context manager
    """Let the engine fail once, after some steps."""

    def __init__(self, model: Model, after: int) -> None:
        self.model, self.left = model, after

    def __enter__(self) -> None:
        engine = self.model.engine
        self.step = engine.step

        def step(*arguments: object, **options: object) -> object:
            self.left -= 1
            if self.left == -1:
                raise EngineError("the device is lost, for a moment")
            return self.step(*arguments, **options)  # type: ignore[arg-type]

        engine.step = step  # type: ignore[method-assign]

    def __exit__(self, *_: object) -> None:
        del self.model.engine.step


@pytest.mark.parametrize("number", range(FIRST, FIRST + PROGRAMS))
def test_a_program_equals_its_replay(small_model: Model, number: int, tmp_path: Path) -> None:
    Program(small_model, number, tmp_path).run(steps=10)


@pytest.mark.parametrize("number", range(FIRST, FIRST + PROGRAMS // 8))
def test_a_program_with_a_memory_of_contexts_equals_its_replay(
    variant_bundle: Callable[[str], Path], number: int, tmp_path: Path
) -> None:
    Program(load(variant_bundle("memory of contexts")), number, tmp_path).run(steps=10)


@pytest.mark.parametrize("number", range(FIRST, FIRST + PROGRAMS // 8))
def test_a_program_of_a_taught_bundle_equals_its_replay(
    taught_bundle: Path, number: int, tmp_path: Path
) -> None:
    Program(load(taught_bundle), number, tmp_path).run(steps=10)

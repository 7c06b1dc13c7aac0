"""Threads: one at a time in each session, any number of sessions side by side.

For a longer run, use ``make load``, or set RILLET_LOAD_SESSIONS and RILLET_LOAD_SECONDS.
"""

from __future__ import annotations

import functools
import gc
import os
import queue
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rillet.runtime import Model, Session, UsageError, load
from rillet.runtime.engines.base import ProviderChoice
from rillet.runtime.streams.thread_guard import ThreadGuard, exclusive
from support.native import needs_native

SESSIONS = int(os.environ.get("RILLET_LOAD_SESSIONS", "48"))
SECONDS = float(os.environ.get("RILLET_LOAD_SECONDS", "0"))
"""How long to keep repeating the sessions after the first round."""
THREADS = 8
PROMPTS = ("It is ", "The value of ", "An object has ", "If no ")


def in_threads(count: int, work: Callable[[int], object]) -> list[BaseException]:
    """Run a function in several threads and return the exceptions they raised."""
    raised: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def waiting(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method that takes at least a millisecond, in which other threads run."""

    @functools.wraps(method)
    def slow(*arguments: Any, **options: Any) -> Any:
        time.sleep(1e-3)
        return method(*arguments, **options)

    return slow


@pytest.mark.parametrize("provider", ["cpu", pytest.param("native", marks=needs_native)])
def test_threads_that_share_a_session_do_not_corrupt_it(
    small_bundle: Path, monkeypatch: pytest.MonkeyPatch, provider: ProviderChoice
) -> None:
    """Every step is either refused or complete: the text is that of one stream."""
    model = load(small_bundle, provider)
    # Whoever computes lets the others come.
    slow = model.engine if model.drafter is None else model.drafter
    for name in ("step", "draft"):
        if (method := getattr(slow, name, None)) is not None:
            monkeypatch.setattr(slow, name, waiting(method))
    session = model.session()
    session.feed("It is ")
    stream = session.tokens(max_new_tokens=1_000_000, seed=5)
    generated: queue.SimpleQueue[int] = queue.SimpleQueue()
    refused: list[str] = []
    written = [0] * THREADS

    def write(number: int) -> None:
        while written[number] < 40:
            try:
                generated.put(next(stream).token)
                written[number] += 1
            except UsageError as error:
                refused.append(str(error))

    assert in_threads(THREADS, write) == []
    assert session.position == len("It is ") + 40 * THREADS
    assert refused, "no two threads ever met"
    assert all("used by another thread" in message for message in refused)
    # The threads may record the tokens in another order than the session wrote them.
    alone = model.session()
    alone.feed("It is ")
    expected = [token.token for token in alone.tokens(max_new_tokens=40 * THREADS, seed=5)]
    assert sorted(expected) == sorted(generated.get_nowait() for _ in range(40 * THREADS))
    np.testing.assert_array_equal(session.logits, alone.logits)
    for name, value in alone.state.items():
        np.testing.assert_array_equal(session.state[name], value, err_msg=name)


def test_every_method_is_refused_to_another_thread(small_model: Model, tmp_path: Path) -> None:
    """While one thread is inside a session, no method can be called; afterwards all can."""
    session = small_model.session()
    session.feed("It is ")
    checkpoint = session.checkpoint()
    inside, leave = threading.Event(), threading.Event()

    def stay(piece: str) -> None:
        inside.set()
        assert leave.wait(60)

    thread = threading.Thread(
        target=lambda: session.generate(max_new_tokens=1, seed=1, on_text=stay)
    )
    thread.start()
    assert inside.wait(60)
    methods: list[Callable[[], object]] = [
        lambda: session.feed("x"),
        lambda: session.feed_tokens([1]),
        lambda: session.step(1),
        lambda: session.score("some text"),
        lambda: session.generate(max_new_tokens=1),
        lambda: session.stream(max_new_tokens=1),
        lambda: session.tokens(max_new_tokens=1),
        lambda: session.samples(1, max_new_tokens=1),
        lambda: session.beam_search(2, max_new_tokens=1),
        lambda: session.learn("x"),
        session.resume,
        session.forget,
        session.checkpoint,
        lambda: session.rollback(checkpoint),
        session.fork,
        session.reset,
        lambda: session.save(tmp_path / "a.state"),
        lambda: session.state,
        session.close,
        lambda: small_model.batch().join(session),
    ]
    try:
        for method in methods:
            with pytest.raises(UsageError, match="used by another thread"):
                method()
    finally:
        leave.set()
        thread.join()
    session.rollback(checkpoint)
    assert not list(tmp_path.iterdir())
    session.close()


def test_threads_that_share_a_batch_do_not_corrupt_it(small_model: Model) -> None:
    batch = small_model.batch()
    for seed in range(4):
        session = small_model.session()
        session.feed("It is ")
        batch.join(session, max_new_tokens=100, seed=seed)
    steps, refused = [0] * THREADS, []

    def write(number: int) -> None:
        while True:
            try:
                if not batch.write():
                    return
                steps[number] += 1
            except UsageError as error:
                refused.append(str(error))

    assert in_threads(THREADS, write) == []
    assert sum(steps) == 100
    assert all("the batch is being used by another thread" in message for message in refused)


class Guarded:
    """An object with the thread guard of a session and nothing else."""

    def __init__(self) -> None:
        self.guard = ThreadGuard("session")

    @exclusive
    def work(self) -> None:
        """Do nothing, so that an interrupt arrives inside the guard itself."""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no interval timers")
def test_ctrl_c_inside_the_guard_locks_nobody_out() -> None:
    """After an interrupt at any moment and one more call, other threads may enter the guard."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    chance = random.Random(0)  # noqa: S311 - must be repeatable
    try:
        for _ in range(2_000):
            guarded = Guarded()
            try:
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(5e-6, 30e-6))
                while True:
                    guarded.work()
            except KeyboardInterrupt:
                guarded.work()
            assert in_threads(1, lambda _, it=guarded: it.work()) == []
    finally:
        signal.signal(signal.SIGALRM, before)


class Life:
    """A session's random course, determined by its number alone so that it can be repeated."""

    def __init__(self, model: Model, number: int, folder: Path) -> None:
        self.model, self.folder = model, folder
        self.random = np.random.default_rng(number)
        self.number = number

    def live(self) -> list[str]:
        """Read, write, cancel, save and restore, fork and roll back; return the texts."""
        session = self.model.session(str(self.random.choice(["read", "all", "none"])))
        text = []
        for turn in range(self.random.integers(2, 6)):
            session.feed(str(self.random.choice(PROMPTS)) * int(self.random.integers(1, 5)))
            text.append(self._write(session, turn))
            session = self._replace(session, turn)
        session.close()
        return text

    def _write(self, session: Session, turn: int) -> str:
        options = {
            "max_new_tokens": int(self.random.integers(1, 41)),
            "temperature": float(self.random.choice([0.0, 0.7, 1.1])),
            "top_p": float(self.random.choice([1.0, 0.9])),
            "seed": 1_000 * self.number + turn,
        }
        end, pieces = self.random.integers(1, 31), []
        stream = session.stream(**options)
        for piece in stream:
            pieces.append(piece)
            if len(pieces) == end:
                stream.cancel()
        return "".join(pieces)

    def _replace(self, session: Session, turn: int) -> Session:
        """Save and restore, fork, roll back, or teach; return the session that continues."""
        action = self.random.integers(5)
        if action == 0:
            path = self.folder / f"{self.number}-{turn}.state"
            session.save(path)
            session.close()
            session = self.model.restore(path)
            path.unlink()
        elif action == 1:
            twin = session.fork()
            session.close()
            session = twin
        elif action == 2:
            checkpoint = session.checkpoint()
            session.generate(max_new_tokens=5, seed=1)
            session.rollback(checkpoint)
        elif action == 3:
            session.learn("The sum of two numbers is a number. ")
        return session


def test_sessions_in_many_threads_equal_their_reruns_in_one(
    small_bundle: Path, tmp_path: Path
) -> None:
    """And file descriptors and memory do not grow."""
    model = load(small_bundle, "cpu")
    texts: dict[int, list[str]] = {}
    numbers: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(SESSIONS):
        numbers.put(number)
    until = time.monotonic() + SECONDS
    usage: list[tuple[int, int]] = []

    def work(_: int) -> None:
        while True:
            try:
                number = numbers.get_nowait()
            except queue.Empty:
                return
            text = Life(model, number, tmp_path).live()
            assert texts.setdefault(number, text) == text, "a repeated session wrote another text"
            if time.monotonic() < until:
                numbers.put(number)
            if number == 0:
                usage.append(_resources())

    before = _resources()
    assert in_threads(THREADS, work) == []
    assert sorted(texts) == list(range(SESSIONS))
    for number, text in texts.items():
        assert Life(model, number, tmp_path).live() == text, number
    assert list(tmp_path.iterdir()) == []
    gc.collect()
    files, memory = _resources()
    assert files <= before[0] + 2
    # Memory stays at the level of the first round, apart from the allocator's own reserves.
    assert memory - (usage[0][1] if len(usage) > 1 else before[1]) < 64 << 20


def test_a_session_does_not_wait_for_another(small_bundle: Path) -> None:
    """While one thread is inside a callback, other sessions keep writing."""
    model = load(small_bundle, "cpu")
    inside, leave = threading.Event(), threading.Event()

    def stay(piece: str) -> None:
        inside.set()
        assert leave.wait(60)

    slow = threading.Thread(
        target=lambda: model.generate("It is ", max_new_tokens=1, seed=1, on_text=stay)
    )
    slow.start()
    assert inside.wait(60)
    try:
        raised = in_threads(
            4, lambda number: model.generate("It is ", max_new_tokens=50, seed=number)
        )
        assert raised == []
        assert slow.is_alive()
    finally:
        leave.set()
        slow.join()


def test_ten_thousand_forks_leak_nothing(small_model: Model) -> None:
    session = small_model.session()
    session.feed("It is ")
    expected = session.fork().generate(max_new_tokens=10, seed=1)
    before = _resources()[1]
    for number in range(10_000):
        twin = session.fork()
        if number % 1_000 == 0:
            assert twin.generate(max_new_tokens=10, seed=1) == expected
    gc.collect()
    assert _resources()[1] - before < 64 << 20
    # A fork of a fork of a fork, a thousand deep.
    twin = session
    for _ in range(1_000):
        twin = twin.fork()
    assert twin.generate(max_new_tokens=10, seed=1) == expected


def test_a_saved_stream_can_be_restored_twice(small_model: Model, tmp_path: Path) -> None:
    session = small_model.session()
    session.feed("It is ")
    session.save(tmp_path / "a.state")
    first, second = (small_model.restore(tmp_path / "a.state") for _ in range(2))
    expected = session.generate(max_new_tokens=30, seed=1)
    assert first.generate(max_new_tokens=30, seed=1) == expected
    first.close()
    assert second.generate(max_new_tokens=30, seed=1) == expected


def _resources() -> tuple[int, int]:
    """Open file descriptors and bytes of resident memory; zeros where they are unavailable."""
    status = Path("/proc/self/statm")
    if not status.exists():
        return 0, 0
    files = len(os.listdir("/proc/self/fd"))
    return files, int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

"""Signals in the middle of a stream, and prompts that nobody would type."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rillet.runtime import Model, load
from support.command_line import RILLET, here

PROMPT = "It is "
PATIENCE = 300
"""Seconds to wait for something that must happen, on however busy a machine."""


class Running:
    """``rillet generate`` in a process of its own; what it writes is gathered as it comes."""

    def __init__(self, *arguments: object, **streams: Any) -> None:
        self.process = subprocess.Popen(
            [*RILLET, "generate", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1"},
            **streams,
        )
        self._output, self._errors = bytearray(), bytearray()
        self._changed = threading.Condition()
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self._readers = [
            threading.Thread(target=self._gather, args=(stream.fileno(), into))
            for stream, into in (
                (self.process.stdout, self._output),
                (self.process.stderr, self._errors),
            )
        ]
        for reader in self._readers:
            reader.start()

    def _gather(self, source: int, into: bytearray) -> None:
        while part := os.read(source, 1 << 16):
            with self._changed:
                into += part
                self._changed.notify_all()

    @property
    def output(self) -> str:
        """All that it has written to standard output."""
        return self._output.decode()

    @property
    def errors(self) -> str:
        """All that it has written to standard error."""
        return self._errors.decode()

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until what it has written fulfils a condition."""
        with self._changed:
            assert self._changed.wait_for(condition, PATIENCE), self.errors

    def wait_for_output(self, size: int) -> None:
        """Wait until it has written this many bytes in all."""
        self.wait_until(lambda: len(self._output) >= size)

    def type(self, line: str) -> None:
        """Write a line to its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode())
        self.process.stdin.flush()

    def end(self) -> int:
        """Wait for its end; its exit status."""
        status = self.process.wait(PATIENCE)
        for reader in self._readers:
            reader.join()
        return status

    def close(self) -> None:
        """Kill it if it still runs, and close its streams."""
        self.process.kill()
        self.end()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def begin(*arguments: object, **streams: Any) -> Running:
        started.append(Running(*arguments, **streams))
        return started[-1]

    yield begin
    for running in started:
        running.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("how", ["streaming", "at its end"])
def test_a_signal_ends_the_text_and_saves_the_stream(
    start: Callable[..., Running],
    small_bundle: Path,
    tmp_path: Path,
    number: signal.Signals,
    how: str,
) -> None:
    """The text so far and its continuation after a restore equal the uninterrupted text."""
    state = tmp_path / "a.state"
    arguments = [small_bundle, PROMPT, "--max-new-tokens", 10_000_000, "--seed", 4]
    arguments += ["--save-state", state, *(["--no-stream"] if how == "at its end" else [])]
    running = start(*arguments)
    running.wait_for_output(len(PROMPT) + (20 if how == "streaming" else 0))
    running.process.send_signal(number)
    assert running.end() == 128 + number, running.errors
    assert running.errors.strip() == "Stopped."
    text = running.output[len(PROMPT) : -1]  # the command ends its output with a newline
    session = load(small_bundle).restore(state)
    assert session.position == len(PROMPT) + len(text)
    alone = load(small_bundle).session()
    alone.feed(PROMPT)
    rest = "".join(session.resume(50))
    assert alone.generate(max_new_tokens=len(text) + 50, seed=4) == text + rest


def test_ctrl_c_while_a_long_prompt_is_read(
    start: Callable[..., Running], small_bundle: Path, tmp_path: Path
) -> None:
    """A prompt of 100 MB: memory stays bounded, and what was read so far is saved."""
    long, state = tmp_path / "long.txt", tmp_path / "a.state"
    long.write_text("It is so long a prompt! " * 100_000)
    os.truncate(long, 100_000_000)  # zeros that take no space, and are not reached
    running = start(small_bundle, "--file", long, "--save-state", state)
    poll(lambda: read_position(running.process.pid, long) > 150_000)  # it has fed a block
    resident = resident_memory(running.process.pid)
    running.process.send_signal(signal.SIGINT)
    assert running.end() == 130, running.errors
    assert "Traceback" not in running.errors
    assert resident < 400 << 20
    assert running.output == ""
    assert 0 < load(small_bundle).restore(state).position < 2_400_000


def test_ctrl_c_while_standard_input_is_waited_for(
    start: Callable[..., Running], small_bundle: Path, tmp_path: Path
) -> None:
    running = start(small_bundle, "-", "--save-state", tmp_path / "a.state", stdin=subprocess.PIPE)
    running.type("It is\n")
    poll(lambda: unread(running.process) == 0 and is_asleep(running.process.pid))
    running.process.send_signal(signal.SIGINT)
    # Standard input stays open: it is the signal that ends it.
    assert running.end() == 130
    assert "Traceback" not in running.errors


def test_ctrl_c_in_a_conversation_ends_the_text_alone(
    start: Callable[..., Running], small_bundle: Path, tmp_path: Path
) -> None:
    state = tmp_path / "a.state"
    running = start(
        *(small_bundle, "--interactive", "--seed", 1, "--max-new-tokens", 10_000_000),
        *("--stop", "§", "--save-state", state),
        stdin=subprocess.PIPE,
    )
    for turn in (1, 2):
        before = len(running.output.encode())
        running.type("It is\n")
        running.wait_for_output(before + 30)
        running.process.send_signal(signal.SIGINT)
        running.type("/help\n")  # answered once the text has ended
        running.wait_until(lambda turn=turn: running.errors.count("Commands: ") == turn)
    assert running.process.stdin is not None
    running.process.stdin.close()
    assert running.end() == 0, running.errors
    assert load(small_bundle).restore(state).position > 2 * len("It is\n")


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        (b"", None),
        (b"\xff\xfe\x00It is", "not UTF-8"),
        ("\u2603\U0001f600".encode() * 1_000, "never seen"),
        (b"\0" * 10_000, "never seen"),
    ],
    ids=["zero bytes", "not UTF-8", "characters never seen", "nulls"],
)
def test_prompts_nobody_would_type(
    small_bundle: Path, tmp_path: Path, prompt: bytes, expected: str | None
) -> None:
    file = tmp_path / "prompt.txt"
    file.write_bytes(prompt)
    result = here("generate", small_bundle, "--file", file, "--max-new-tokens", 5, "--seed", 1)
    assert "Traceback" not in result.stderr
    if expected is None:
        assert result.returncode == 0
        assert result.stderr == ""
    else:
        assert expected in result.stderr
        assert result.returncode == (1 if "UTF-8" in expected else 0)


def test_a_long_prompt_takes_no_more_memory_than_a_line(small_model: Model) -> None:
    session = small_model.session()
    session.feed("It is " * 200)
    before = resident_memory(os.getpid())
    session.feed("It is so long a prompt! " * 2_000)
    assert session.position == 1_200 + 48_000
    assert resident_memory(os.getpid()) - before < 16 << 20


def poll(condition: Callable[[], bool]) -> None:
    """Wait until another process has come to a point that it does not announce."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.01)


def proc(process: int, name: str) -> Path:
    """A file of the /proc folder of a process; skips where there is none."""
    if not Path("/proc/self/statm").exists():
        pytest.skip("this system has no /proc")
    return Path(f"/proc/{process}/{name}")


def resident_memory(process: int) -> int:
    """Bytes of resident memory."""
    return int(proc(process, "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def is_asleep(process: int) -> bool:
    """Whether the main thread waits for something."""
    return proc(process, "stat").read_text().rpartition(")")[2].split()[0] == "S"


def read_position(process: int, path: Path) -> int:
    """How far a process has read a file; 0 where it has not opened it."""
    for link in proc(process, "fd").iterdir():
        with contextlib.suppress(OSError):
            if Path(os.readlink(link)) == path:
                return int(proc(process, f"fdinfo/{link.name}").read_text().split()[1])
    return 0


def unread(process: subprocess.Popen[bytes]) -> int:
    """Bytes in a process's standard input that it has not read."""
    assert process.stdin is not None
    size = bytearray(4)
    fcntl.ioctl(process.stdin.fileno(), termios.FIONREAD, size)
    return int.from_bytes(size, sys.byteorder)

"""Signals in the middle of a stream, and prompts that nobody would type."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rillet.runtime import Model, load

RILLET = [sys.executable, "-m", "rillet.runtime.cli", "generate"]
PROMPT = "It is "


def start(*arguments: object, **streams: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*RILLET, *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1"}, **streams,  # type: ignore[call-overload]
    )  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("how", ["streaming", "at its end"])
def test_a_signal_ends_the_text_and_saves_the_stream(
    small_bundle: Path, tmp_path: Path, number: signal.Signals, how: str
) -> None:
    """What was written, and what comes after a restore, is the text that nothing interrupted."""
    state = tmp_path / "a.state"
    arguments = [small_bundle, PROMPT, "--max-new-tokens", 10_000_000, "--seed", 4]
    arguments += ["--save-state", state, *(["--no-stream"] if how == "at its end" else [])]
    process = start(*arguments)
    assert process.stdout is not None
    assert process.stderr is not None
    begun = process.stdout.read(len(PROMPT) + 20 if how == "streaming" else len(PROMPT))
    time.sleep(0.3)
    process.send_signal(number)
    rest, errors = process.stdout.read(), process.stderr.read()  # communicate() drops read-ahead
    assert process.wait() == 128 + number, errors
    assert errors.strip() == "Stopped."
    text = (begun + rest)[len(PROMPT) : -1]  # the command ends its output with a line end
    session = load(small_bundle).restore(state)
    assert session.position == len(PROMPT) + len(text)
    alone = load(small_bundle).session()
    alone.feed(PROMPT)
    assert alone.generate(max_new_tokens=len(text) + 50, seed=4) == text + "".join(
        session.resume(50)
    )


def test_ctrl_c_while_a_long_prompt_is_read(small_bundle: Path, tmp_path: Path) -> None:
    """A prompt of 100 MB: memory stays bounded, and what was read so far is saved."""
    long = tmp_path / "long.txt"
    with long.open("w") as file:
        for _ in range(1_000):
            file.write("It is so long a prompt! " * 4_167)
    assert long.stat().st_size > 100_000_000
    state = tmp_path / "a.state"
    process = start(small_bundle, "--file", long, "--save-state", state)
    while process.poll() is None and _resident(process.pid) < 50 << 20:
        time.sleep(0.05)  # it is still being started
    time.sleep(2)
    most = _resident(process.pid)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate()
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert most < 400 << 20
    assert output == ""
    assert 0 < load(small_bundle).restore(state).position < 100_000_000


def test_ctrl_c_while_standard_input_is_waited_for(small_bundle: Path, tmp_path: Path) -> None:
    process = start(small_bundle, "-", "--save-state", tmp_path / "a.state", stdin=subprocess.PIPE)
    while process.poll() is None and _resident(process.pid) < 50 << 20:
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    # Standard input stays open: it is the signal that ends it.
    assert process.wait() == 130
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()
    for stream in (process.stdin, process.stdout, process.stderr):
        assert stream is not None
        stream.close()


def test_ctrl_c_in_a_conversation_ends_the_text_alone(small_bundle: Path, tmp_path: Path) -> None:
    state = tmp_path / "a.state"
    process = start(
        small_bundle, "--interactive", "--seed", 1, "--max-new-tokens", 10_000_000, "--stop", "§",
        "--save-state", state, stdin=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    output = process.stdout.fileno()
    for _ in range(2):
        process.stdin.write("It is\n")
        process.stdin.flush()
        assert os.read(output, 30)  # it writes
        process.send_signal(signal.SIGINT)
        time.sleep(1)
        os.set_blocking(output, False)
        with contextlib.suppress(BlockingIOError):
            while os.read(output, 1 << 16):
                pass
        os.set_blocking(output, True)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert load(small_bundle).restore(state).position > 2 * len("It is\n")


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        (b"", None),
        (b"\xff\xfe\x00It is", "not UTF-8"),
        ("\u2603\U0001f600".encode() * 1_000, "never seen"),
        (b"\0" * 10_000, "never seen"),
    ],
    ids=["zero bytes", "not UTF-8", "characters never seen", "nulls"],
)
def test_prompts_nobody_would_type(
    small_bundle: Path, tmp_path: Path, prompt: bytes, wanted: str | None
) -> None:
    file = tmp_path / "prompt.txt"
    file.write_bytes(prompt)
    process = start(small_bundle, "--file", file, "--max-new-tokens", 5, "--seed", 1)
    _, errors = process.communicate()
    assert "Traceback" not in errors
    if wanted is None:
        assert process.returncode == 0
        assert errors == ""
    else:
        assert wanted in errors
        assert process.returncode == (1 if "UTF-8" in wanted else 0)


def test_a_long_prompt_takes_no_more_memory_than_a_line(small_model: Model) -> None:
    session = small_model.session()
    session.feed("It is " * 200)
    before = _resident(os.getpid())
    session.feed("It is so long a prompt! " * 2_000)
    assert session.position == 1_200 + 48_000
    assert _resident(os.getpid()) - before < 16 << 20


def _resident(process: int) -> int:
    """Bytes of resident memory."""
    path = Path(f"/proc/{process}/statm")
    if not path.parent.parent.joinpath("self").exists():
        pytest.skip("the system does not tell a process's memory")
    try:
        return int(path.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (FileNotFoundError, ProcessLookupError, IndexError):
        return 0

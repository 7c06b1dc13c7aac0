"""``rillet-run`` and ``rillet generate`` keep a stream whatever happens around them."""

from __future__ import annotations

import fcntl
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from rillet.runtime import load
from support.native import needs_native
from support.rillet_run import needs_compiler, program, rillet_run

pytestmark = [needs_native, needs_compiler]

MODEL = Path(__file__).parents[2] / "models" / "shakespeare-nano"
ENDLESS = ["a", "--seed", "3", "--max-new-tokens", "1000000000"]


def python() -> list[str]:
    return [sys.executable, "-m", "rillet.runtime", "generate"]


def run() -> list[str]:
    return [str(program())]


def stopped(command: Sequence[str], output: int, reader: int | None = None) -> tuple[int, bytes]:
    """End a command by one SIGTERM, two seconds after it has written; its status and errors."""
    with subprocess.Popen(command, stdout=output, stderr=subprocess.PIPE) as process:
        if reader is not None:
            assert select.select([reader], [], [], 120)[0]
        time.sleep(2)
        process.send_signal(signal.SIGTERM)
        try:
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    return process.returncode, errors


@pytest.mark.skipif(not hasattr(fcntl, "F_SETPIPE_SZ"), reason="only Linux makes pipes smaller")
@pytest.mark.parametrize("name", ["python", "rillet-run"])
def test_a_signal_stops_a_text_that_nobody_reads(name: str, tmp_path: Path) -> None:
    """The reader has stalled; what he has not got comes first when the stream goes on."""
    saved = tmp_path / "saved"
    ours, theirs = os.pipe()
    fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, 16_384)
    command = [*(python() if name == "python" else run()), str(MODEL), *ENDLESS]
    status, errors = stopped([*command, "--save-state", str(saved)], theirs, ours)
    os.close(theirs)
    with os.fdopen(ours, "rb") as reader:
        read = reader.read()
    assert (status, errors) == (143, b"\nStopped.\n")
    assert len(read) <= 16_384  # he has stalled
    model = load(MODEL, "native")
    session = model.restore(saved)
    assert len(read) - 2 <= session.position  # the prompt, and perhaps an end of line
    rest = "".join(session.resume(500))
    whole = model.session()
    whole.feed("a")
    expected = "a" + whole.generate(seed=3, max_new_tokens=len(read) + 600)
    assert len(rest) >= 500
    written = read.decode().removesuffix("\n") + rest
    assert written == expected[: len(written)]


def test_a_signal_stops_it_at_a_pipe_that_nobody_opens(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    command = [*run(), str(MODEL), "--file", str(tmp_path / "pipe")]
    assert stopped(command, subprocess.DEVNULL) == (143, b"\nStopped.\n")


@pytest.mark.parametrize("path", ["pipe", "/dev/zero"])
def test_a_saved_stream_is_a_regular_file(path: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    result = rillet_run(MODEL, "--load-state", tmp_path / path)
    assert result.returncode == 1
    assert b"is a device or a pipe; give a file that session.save()" in result.stderr


def test_removes_what_killed_writers_left_and_no_more(tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    stale = tmp_path / ".saved.0123456789abcdef.tmp"
    others = [tmp_path / ".saved.0123.tmp", tmp_path / ".saved2.0123456789abcdef.tmp"]
    for path in (stale, *others):
        path.write_bytes(b"half")
    held = tmp_path / ".saved.fedcba9876543210.tmp"
    with held.open("wb") as running:
        fcntl.flock(running, fcntl.LOCK_EX)
        result = rillet_run(MODEL, "a", "--max-new-tokens", 3, "--save-state", saved)
    assert result.returncode == 0
    assert sorted(tmp_path.iterdir()) == sorted([saved, held, *others])


def test_a_limit_on_the_size_of_files_is_an_error(tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    result = subprocess.run(
        [program(), str(MODEL), "a", "--max-new-tokens", "3", "--save-state", saved],
        capture_output=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )
    assert result.returncode == 1
    assert b"cannot be written (File too large) and is unchanged" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_refuses_bytes_behind_a_stream(tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    rillet_run(MODEL, "a", "--max-new-tokens", 3, "--save-state", saved)
    saved.write_bytes(saved.read_bytes() + b"zz")
    result = rillet_run(MODEL, "--load-state", saved)
    assert result.returncode == 1
    assert b"bytes follow its tensors" in result.stderr

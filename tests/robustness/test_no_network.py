"""The runtime needs no network: with sockets forbidden, everything still works.

There are two guards. Python's audit events end the process when anything touches the socket
module; a filter in the kernel ends it at the system call, whichever library makes it.
"""

from __future__ import annotations

import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

NANO = Path(__file__).parents[2] / "models" / "shakespeare-nano"

CAUGHT = 97

AUDIT = f"""
import os, sys

def refuse(event, arguments):
    if event.startswith("socket.") or event == "urllib.Request":
        os.write(2, ("forbidden: " + event).encode())
        os._exit({CAUGHT})  # an exception might be swallowed

sys.addaudithook(refuse)
"""

KERNEL = """
import ctypes, platform, struct

def forbid_sockets():
    # seccomp: socket(2) ends the process, all else is allowed. Load the number of the system call;
    # if it is socket's, go to the next line, else to the one after.
    number = {"x86_64": 41, "aarch64": 198}[platform.machine()]
    kill, allow = 0x80000000, 0x7FFF0000
    lines = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, kill), (0x06, 0, 0, allow)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *line) for line in lines))
    program = struct.pack("<HxxxxxxQ", len(lines), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, set_seccomp, by_filter = 38, 22, 2
    failed = libc.prctl(no_new_privileges, 1, 0, 0, 0)
    if failed or libc.prctl(set_seccomp, by_filter, program, 0, 0):
        raise SystemExit(f"no seccomp here: error {ctypes.get_errno()}")

forbid_sockets()
"""

JOBS = """
import sys
from pathlib import Path

import rillet.runtime

bundle, folder = sys.argv[1], Path(sys.argv[2])
model = rillet.runtime.load(bundle)  # with its self-test
session = model.session()
session.feed("ROMEO:")
text = session.generate(max_new_tokens=40, seed=1)
assert session.fork().generate(max_new_tokens=40, seed=1, in_graph=True)
assert "".join(model.stream("ROMEO:", max_new_tokens=40, seed=1)) == text
session.learn("Our cat is called Mirabelle.")
assert model.score("The cat sat on the mat.").tokens == 22
session.save(folder / "romeo.state")
restored = model.restore(folder / "romeo.state")
assert restored.generate(max_new_tokens=40, seed=2) == session.generate(max_new_tokens=40, seed=2)
with model.batch() as batch:
    assert len(batch.generate(["ROMEO:", "JULIET:"], max_new_tokens=10, seed=1)) == 2
assert len(session.beam_search(2, max_new_tokens=5)) == 2
model.close()
"""

COMMANDS = [
    ["--version"],
    ["--help"],
    ["generate", "{bundle}", "ROMEO:", "--max-new-tokens", "20", "--save-state", "{folder}/state"],
    ["generate", "{bundle}", "--load-state", "{folder}/state", "--max-new-tokens", "20", "--json"],
    ["score", "{bundle}", "{bundle}/README.md"],
    ["verify", "{bundle}"],
    ["inspect", "{bundle}"],
    ["bench", "{bundle}", "--tokens", "20"],
    ["engine", "list", "{bundle}"],
    ["doctor", "{bundle}"],
]

CLI = """
import sys
from rillet.runtime.cli import main

bundle, folder, commands = sys.argv[1], sys.argv[2], COMMANDS
for command in commands:
    try:
        main([part.format(bundle=bundle, folder=folder) for part in command])
    except SystemExit as left:
        assert not left.code, (command, left.code)
""".replace("COMMANDS", repr(COMMANDS))


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(params=["audit", "kernel"])
def guard(request: pytest.FixtureRequest) -> str:
    """Code that forbids sockets from then on."""
    if request.param == "audit":
        return AUDIT
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
        pytest.skip("the filter's numbers are those of Linux on x86-64 and 64-bit Arm")
    result = run(KERNEL)
    if result.returncode:
        pytest.skip(result.stderr.strip())
    return KERNEL


def test_the_guards_work(guard: str) -> None:
    python = run(guard + "import socket; socket.socket()")
    assert python.returncode == (CAUGHT if guard == AUDIT else -signal.SIGSYS), python.stderr
    # A native library calls the system itself, as the engine or the tokenizer might.
    native = run(guard + "import ctypes; print(ctypes.CDLL(None).socket(2, 1, 0))")
    assert native.returncode == (0 if guard == AUDIT else -signal.SIGSYS)
    if guard == AUDIT:
        assert run(guard + "import socket; socket.getaddrinfo('localhost', 1)").returncode == CAUGHT


@pytest.mark.parametrize("jobs", [JOBS, CLI], ids=["library", "command line"])
def test_no_network_at_run_time(guard: str, jobs: str, tmp_path: Path) -> None:
    result = run(guard + jobs, NANO, tmp_path)
    assert result.returncode == 0, result.stderr

"""The script that checks a GPU: what it does about steps that fail, hang or are cut off."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "gpu_check.sh"

pytestmark = pytest.mark.skipif(
    shutil.which("bash") is None or shutil.which("timeout") is None,
    reason="the script needs bash and timeout",
)

# An interpreter in which some commands fail or hang, and the others run.
PYTHON = """#!/bin/sh
case "$*" in
    *'{fails}'*) echo 'this one fails'; exit 3 ;;
    *'{hangs}'*) echo $$ > '{pid}'; trap '' INT; while :; do sleep 0.1; done ;;
esac
exec '{python}' "$@"
"""


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def start(
    out: Path, *arguments: str, fails: str = "no such", hangs: str = "no such", **settings: str
) -> subprocess.Popen[str]:
    wrapper = out.with_name("python")
    pid = out.with_name("pid")
    wrapper.write_text(PYTHON.format(fails=fails, hangs=hangs, pid=pid, python=sys.executable))
    wrapper.chmod(0o755)
    environment = {
        **os.environ,
        "PYTHON": str(wrapper),
        "TMPDIR": str(out.parent),
        "OMP_NUM_THREADS": "1",
        **settings,
    }
    command = ["bash", str(SCRIPT), str(out), "--device", "cpu", *arguments]
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Where the tests run in the background, they ignore it, and so would the script.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def lines(out: Path) -> list[str]:
    return (out / "summary.txt").read_text().splitlines()


def status(out: Path, name: str) -> str:
    """What the summary says of a step."""
    [line] = [line for line in lines(out) if f"  {name}" in line]
    return line.partition("  ")[0]


def wait_for_hanging(process: subprocess.Popen[str], out: Path) -> int:
    """Wait until the step that hangs has begun; return its process."""
    pid = out.with_name("pid")
    while process.poll() is None:
        if pid.is_file() and (text := pid.read_text().strip()):
            return int(text)
        time.sleep(0.05)
    raise AssertionError(f"the script ended: {lines(out)}")


def wait_until_gone(pid: int) -> None:
    while Path(f"/proc/{pid}").exists():
        time.sleep(0.05)


def test_the_cheap_parts_on_the_processor(out: Path) -> None:
    process = start(out, "--only", "machine")
    printed, _ = process.communicate()
    assert process.returncode == 0, printed + "\n".join(lines(out))
    assert lines(out)[-1] == "all passed"
    report = json.loads((out / "machine.json").read_text())
    assert report["providers"]["cpu"]["works"]
    log = (out / "log.txt").read_text()
    assert "== versions" in log
    assert "torch for CUDA" in log
    assert len(list(out.iterdir())) <= 8
    assert not list(out.parent.glob("tmp.*"))  # nothing is left behind


def test_a_step_that_fails_or_hangs_stops_no_other(out: Path) -> None:
    process = start(out, "--only", "machine", fails="pip list", hangs="import importlib", LIMIT="2")
    process.communicate()
    assert process.returncode == 1
    assert status(out, "packages") == "FAILED with 3"
    assert "this one fails" in "\n".join(lines(out))
    assert status(out, "versions") == "stopped at its limit of 2 s"
    assert any("  doctor, " in line for line in lines(out))
    assert lines(out)[-1].endswith("did not pass")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_cut_off_leaves_what_it_had(out: Path, number: signal.Signals) -> None:
    process = start(out, "--only", "machine", hangs="pip list")
    hanging = wait_for_hanging(process, out)
    assert status(out, "packages") == "running"
    process.send_signal(number)
    process.communicate() if number != signal.SIGKILL else process.wait()
    assert process.returncode != 0
    assert status(out, "driver") == "passed"
    if number == signal.SIGKILL:
        assert status(out, "packages") == "running"
        os.kill(hanging, signal.SIGKILL)
    else:
        assert status(out, "packages") == "cut off"
        wait_until_gone(hanging)
        assert not list(out.parent.glob("tmp.*"))


def test_when_the_time_is_over_the_rest_is_named(out: Path) -> None:
    process = start(out, "--only", "machine", hangs="pip list", TOTAL="2")
    process.communicate()
    assert process.returncode == 1
    assert status(out, "doctor") == "not run"


def test_parts_are_unpacked_and_come_first(out: Path) -> None:
    """As they are packed: a folder for each part, whole or split."""
    parts = out.with_name("parts")
    site = parts / "site_rtx" / "tensorrt_rtx"
    site.mkdir(parents=True)
    (site / "__init__.py").write_text('__version__ = "from the parts"\n')
    packed = parts / "rtx.txz"
    command = ["tar", "-C", str(parts), "-cJf", str(packed), "site_rtx"]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("tar has no xz")
    data = packed.read_bytes()
    packed.unlink()
    for index, part in enumerate((data[:100], data[100:])):
        (parts / f"rtx.txz.{index:02}").write_bytes(part)
    process = start(out, "--only", "machine", PARTS=str(parts))
    process.communicate()
    assert status(out, "unpack rtx") == "passed"
    assert "tensorrt_rtx from the parts" in (out / "log.txt").read_text()


@pytest.mark.parametrize(
    "arguments",
    [(), ("out", "--only", "nothing"), ("out", "--device", "tpu"), ("out", "--what"), ("a", "b")],
)
def test_usage(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    command = ["bash", str(SCRIPT), *arguments]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "usage: scripts/gpu_check.sh OUT" in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_smoke_part_on_the_processor(out: Path) -> None:
    process = start(out, "--only", "smoke")
    process.communicate()
    assert status(out, "smoke: nano on cpu") == "passed", lines(out)
    assert status(out, "smoke: training") == "passed", lines(out)

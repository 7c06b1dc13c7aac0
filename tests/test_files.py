"""Writing leaves the old or the new, never half."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rillet.runtime import files
from rillet.runtime.files import replace_folder, write_atomic


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("exchange", [True, False])
def test_a_folder_is_replaced_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    if not exchange:
        monkeypatch.setattr(files, "_exchange", lambda first, second: False)
    target = tmp_path / "deep" / "folder"
    for content in ("old", "new"):
        with replace_folder(target) as fresh:
            (fresh / content).write_text(content)
    assert [entry.name for entry in target.iterdir()] == ["new"]
    with pytest.raises(ZeroDivisionError), replace_folder(target) as fresh:
        (fresh / "broken").write_text(str(1 // 0))
    assert [entry.name for entry in target.iterdir()] == ["new"]
    assert [entry.name for entry in target.parent.iterdir()] == ["folder"]


def test_killed_while_writing(tmp_path: Path) -> None:
    """Kill a process that replaces a folder over and over: what is there is always whole."""
    target = tmp_path / "folder"
    script = (
        "import itertools, sys; from pathlib import Path\n"
        "from rillet.runtime.files import replace_folder\n"
        "for number in itertools.count():\n"
        "    with replace_folder(Path(sys.argv[1])) as fresh:\n"
        "        for part in 'ab':\n"
        "            (fresh / part).write_text(str(number) * 50_000)\n"
        "    print(number, flush=True)\n"
    )
    for lines in (1, 2, 3, 5, 8):
        with subprocess.Popen(
            [sys.executable, "-c", script, str(target)], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            for _ in range(lines):
                process.stdout.readline()
            process.send_signal(signal.SIGKILL)
        texts = {(target / part).read_text() for part in "ab"}
        assert len(texts) == 1
        assert len(texts.pop()) % 50_000 == 0

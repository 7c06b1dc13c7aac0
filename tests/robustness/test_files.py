"""A write leaves the old content or the new, never half of it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from rillet.runtime import StorageError, files
from rillet.runtime.files import make_folder, replace_file, replace_folder, write_atomic


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"file cannot be written \(No space left.*free some"):
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
    """A process that keeps replacing a folder is killed: the folder is always whole."""
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


def test_what_is_written_is_on_the_disk_before_it_is_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For power cuts: content is synced first, then renamed, then the folder is synced."""
    done: list[str] = []

    def recorded(name: str, call: Callable[..., object], place: Callable[..., str]) -> None:
        def record(*arguments: object) -> object:
            done.append(f"{name} {place(*arguments)}")
            return call(*arguments)

        monkeypatch.setattr(os, name, record)

    def opened(handle: object) -> str:
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        return "fresh" if path.suffix == ".tmp" else path.name

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("this system does not tell the path of a handle")
    recorded("fsync", os.fsync, opened)
    recorded("replace", os.replace, lambda first, second: Path(second).name)
    recorded("rename", os.rename, lambda first, second: Path(second).name)
    write_atomic(tmp_path / "file", b"new")
    assert done == ["fsync fresh", "replace file", f"fsync {tmp_path.name}"]
    done.clear()
    with replace_folder(tmp_path / "new" / "bundle") as fresh:
        (fresh / "part").write_text("x")
    made = f"fsync {tmp_path.name}"  # where the folder `new` is an entry
    assert done == [made, "fsync part", "fsync fresh", "rename bundle", "fsync new"]


def left_behind(script: str, target: Path) -> None:
    """Run a script, and kill it once it prints a line."""
    begin = f"import signal, sys; from pathlib import Path; path = Path({str(target)!r})\n"
    begin += "from rillet.runtime.files import replace_file, replace_folder\n"
    command = [sys.executable, "-c", begin + script]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()


STOP = "print(flush=True); signal.pause()\n"


def test_the_next_writer_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    target = tmp_path / "kept [1]"
    others = [tmp_path / name for name in (".kept [1].tmp", ".kept [1].x.0123456789abcdef.tmp")]
    for other in others:
        other.write_text("somebody else's")
    left_behind(f"with replace_file(path) as file:\n    file.write(b'half')\n    {STOP}", target)
    assert len(list(tmp_path.iterdir())) == 3
    write_atomic(target, b"whole")
    assert sorted(tmp_path.iterdir()) == sorted([*others, target])
    target.unlink()
    part = "(fresh / 'part').write_text('half')"
    left_behind(f"with replace_folder(path) as fresh:\n    {part}; {STOP}", target)
    assert len(list(tmp_path.iterdir())) == 3
    with replace_folder(target) as fresh:
        (fresh / "part").write_text("whole")
    assert sorted(tmp_path.iterdir()) == sorted([*others, target])


def test_a_living_writer_keeps_its_temporary(tmp_path: Path) -> None:
    path, folder = tmp_path / "file", tmp_path / "folder"
    with replace_file(path) as first, replace_folder(folder) as slow:
        first.write(b"first")
        (slow / "part").write_text("slow")
        write_atomic(path, b"second")
        with replace_folder(folder) as quick:
            (quick / "part").write_text("quick")
        assert path.read_bytes() == b"second"
        assert (folder / "part").read_text() == "quick"
    assert path.read_bytes() == b"first"
    assert (folder / "part").read_text() == "slow"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder"]


def test_many_write_the_same_file(tmp_path: Path) -> None:
    """Writers leave each other's temporary files alone, and every read is whole."""
    path, failures = tmp_path / "file", []

    def write(number: int) -> None:
        try:
            for _ in range(40):
                write_atomic(path, bytes([number]) * 30_000)
                assert len(set(path.read_bytes())) == 1
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_killed_between_two_moves(tmp_path: Path) -> None:
    """Where folders cannot be exchanged atomically, the next writer restores the old one."""
    target = tmp_path / "folder"
    aside = tmp_path / ".folder.0123456789abcdef.old"
    aside.mkdir()
    (aside / "part").write_text("old")
    with pytest.raises(ZeroDivisionError), replace_folder(target):
        raise ZeroDivisionError
    assert (target / "part").read_text() == "old"
    shutil.copytree(target, aside)
    with replace_folder(target) as fresh:
        (fresh / "part").write_text("new")
    assert (target / "part").read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


def test_a_folder_that_may_be_written_and_not_read() -> None:
    """The move is done by then: to call the file unchanged would be false."""
    script = (
        "import os, sys; from pathlib import Path; from rillet.runtime.files import write_atomic\n"
        "os.seteuid(int(sys.argv[2]))\n"
        "write_atomic(Path(sys.argv[1]), b'new')"
    )
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # where another user may go
        user = os.geteuid() or 65_534  # root may read everything
        if os.geteuid() == 0:
            os.chown(folder, user, -1)
        Path(folder).chmod(0o300)
        subprocess.run([sys.executable, "-c", script, f"{folder}/file", str(user)], check=True)
        Path(folder).chmod(0o700)
        assert Path(folder, "file").read_bytes() == b"new"


def test_folders_that_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="file/deep cannot be written"):
        make_folder(tmp_path / "file" / "deep")
    with pytest.raises(StorageError, match=r"missing/file cannot be written .*create its folder"):
        write_atomic(tmp_path / "missing" / "file", b"x")
    with pytest.raises(StorageError, match="is a folder"):
        write_atomic(tmp_path, b"x")

"""A disk that is full or read-only gives one clear error, and nothing is lost."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rillet.runtime import load
from rillet.runtime.files import sha256_file
from support.fork_server import Ended, Server, serving
from support.operations import NANO, PROMPT, TOKENS

pytestmark = pytest.mark.slow

LARGEST = {
    "train": 30_000,
    "export": 500_000,
    "quantize": 300_000,
    "state": 50_000,
    "generate": 50_000,
    "engine": 500_000,
}
"""The file size limit of each operation: some of its files stay below it, one does not."""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    if not hasattr(os, "fork"):
        pytest.skip("this system cannot fork")
    with serving() as started:
        yield started


@pytest.fixture(scope="module")
def prepared(
    server: Server, text: str, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """The folder of an operation that has succeeded once, by name."""
    made: dict[str, Path] = {}

    def prepare(operation: str) -> Path:
        if operation not in made:
            folder = made[operation] = tmp_path_factory.mktemp(operation)
            (folder / "corpus.txt").write_text(text[:12_000], encoding="utf-8")
            if operation == "engine":
                shutil.copytree(NANO, folder / "model")
            ended = server.run(operation, folder)
            assert ended.status == 0, ended.said
            if operation == "train":  # the next run starts over, on the old checkpoint
                (folder / "run" / "training.safetensors").unlink()
        return made[operation]

    return prepare


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk, mounted for one test."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() != 0 or (failure := mount("-t", "tmpfs", "-o", "size=16m", "tmpfs", place)):
        pytest.skip(f"no disk can be mounted here ({failure if os.geteuid() == 0 else 'not root'})")
    yield place
    subprocess.run([str(shutil.which("umount")), str(place)], check=True)


def mount(*arguments: object) -> str:
    """Mount something; the reason where that fails, or nothing."""
    program = shutil.which("mount")
    if program is None:
        return "there is no mount"
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)
    return done.stderr if done.returncode else ""


def content(folder: Path) -> dict[str, str]:
    """The hash of every file, except the corpus record, which holds the time of the copy."""
    return {
        str(path.relative_to(folder)): sha256_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "corpus.tokens.json"
    }


def assert_nothing_lost(ended: Ended, folder: Path, before: dict[str, str], reason: str) -> None:
    """Check for one error in plain words, and that no file has changed."""
    assert ended.status == 1, ended.said
    error = ended.said[ended.said.find("Error: ") :]
    assert reason in error
    assert "cannot be written" in error or "there is no folder to keep" in error
    assert "Traceback" not in ended.said
    assert "rillet itself failed" not in ended.said
    assert content(folder) == before


@pytest.mark.parametrize("operation", LARGEST)
def test_a_file_that_may_not_grow(
    server: Server, prepared: Callable[[str], Path], tmp_path: Path, operation: str
) -> None:
    folder = shutil.copytree(prepared(operation), tmp_path / "work")
    before = content(folder)
    ended = server.run(operation, folder, largest=LARGEST[operation])
    assert_nothing_lost(ended, folder, before, "File too large")


@pytest.mark.parametrize("operation", LARGEST)
def test_a_full_disk(
    server: Server, prepared: Callable[[str], Path], disk: Path, operation: str
) -> None:
    folder = shutil.copytree(prepared(operation), disk / "work")
    filler = disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb") as file:
        while True:
            file.write(bytes(4096))
            file.flush()
    os.truncate(filler, filler.stat().st_size - 30_000)
    before = content(folder)
    ended = server.run(operation, folder)
    assert_nothing_lost(ended, folder, before, "No space left")
    filler.unlink()
    ended = server.run(operation, folder)
    assert ended.status == 0, ended.said


@pytest.mark.parametrize("operation", LARGEST)
def test_a_folder_that_may_not_be_written(
    server: Server, prepared: Callable[[str], Path], disk: Path, operation: str
) -> None:
    folder = shutil.copytree(prepared(operation), disk / "work")
    before = content(folder)
    assert not mount("-o", "remount,ro", disk)
    ended = server.run(operation, folder)
    assert_nothing_lost(ended, folder, before, "Read-only file system")


def test_a_stream_continues_when_it_cannot_be_saved(server: Server, tmp_path: Path) -> None:
    session = load(NANO, "cpu", 1).session()
    session.feed(PROMPT)
    whole = session.generate(seed=5, max_new_tokens=TOKENS)
    ended = server.run("stubborn", tmp_path, largest=50_000)
    assert ended.status == 0, ended.said
    assert ended.said.count("#") == TOKENS // 4
    assert ended.said.replace("#", "") == whole
    assert not list(tmp_path.iterdir())

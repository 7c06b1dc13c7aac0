"""Power loss: a process killed at any moment leaves whole files or none.

Half of the kills come at a random time, half just before a random file operation.
``make kill`` kills hundreds of times (``RILLET_KILLS``); ``RILLET_KILLS_FROM`` is the first seed.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from rillet.runtime import Bundle, Model, load
from rillet.runtime.engines.tensorrt.records import find_records
from rillet.runtime.files import sha256_file
from rillet.train import load_checkpoint
from support.fork_server import Ended, Server, serving
from support.operations import NANO, PROMPT, TOKENS, tensorrt_obstacle

pytestmark = pytest.mark.slow

LONG = os.environ.get("RILLET_KILLS")
FROM = int(os.environ.get("RILLET_KILLS_FROM", "0"))


def kills(few: int) -> int:
    """How often to kill: ``few`` times, unless ``RILLET_KILLS`` asks for more."""
    return few if LONG is None else int(LONG)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    if not hasattr(os, "fork"):
        pytest.skip("this system cannot fork")
    with serving() as started:
        yield started


@pytest.fixture
def folder(tmp_path: Path, text: str) -> Path:
    (tmp_path / "corpus.txt").write_text(text[:12_000], encoding="utf-8")
    return tmp_path


def temporaries(folder: Path) -> list[Path]:
    """Temporary files and folders that a killed writer left behind."""
    return [path for path in folder.rglob(".*") if path.suffix in (".tmp", ".old")]


def kill_often(
    server: Server, operation: str, folder: Path, times: int, check: Callable[[Ended], None]
) -> None:
    """Run an operation again and again in one folder, and kill it each time.

    Args:
        server: Runs the operation.
        operation: Its name.
        folder: The folder it works in.
        times: How often to kill it.
        check: Called with how each run ended.
    """
    whole = server.run(operation, folder)
    assert whole.status == 0, whole.said
    check(whole)
    killed = left = 0
    for number in range(FROM, FROM + times):
        chance = random.Random(number)  # noqa: S311 - it is to be repeatable
        if number % 2:
            ended = server.run(operation, folder, event=chance.randint(1, whole.events))
        else:
            ended = server.run(operation, folder, after=chance.uniform(0, whole.seconds))
        assert ended.killed or ended.status == 0, f"kill {number}: {ended.said}"
        killed += ended.killed
        left += bool(temporaries(folder))
        check(ended)
    ended = server.run(operation, folder)
    assert ended.status == 0, ended.said
    check(ended)
    assert not temporaries(folder)
    sys.stdout.write(f"{operation}: {killed} of {times} killed in time; {left} left temporaries\n")
    assert killed > times // 4


def test_training(server: Server, folder: Path) -> None:
    """Checkpoints are whole, and a run that is killed and resumed ends with the same weights."""
    run, kept = folder / "run", folder / "kept"
    finished = 0

    def check(ended: Ended) -> None:
        nonlocal finished
        if (run / "checkpoint.safetensors").exists():
            load_checkpoint(run)
        if ended.status != 0:
            return
        if kept.exists():
            expected, actual = (load_checkpoint(f).model.state_dict() for f in (kept, run))
            for name, tensor in expected.items():
                assert torch.equal(tensor, actual[name]), name
        else:
            shutil.copytree(run, kept)
        assert not temporaries(folder)
        finished += 1
        shutil.rmtree(run)  # start over

    kill_often(server, "train", folder, kills(6), check)
    assert finished >= 2


def test_export(server: Server, folder: Path) -> None:
    check_bundle = whole_bundle(folder / "bundle")
    kill_often(server, "export", folder, kills(4), check_bundle)


def test_quantize(server: Server, folder: Path) -> None:
    check_bundle = whole_bundle(folder / "int8")
    kill_often(server, "quantize", folder, kills(4), check_bundle)


def whole_bundle(target: Path) -> Callable[[Ended], None]:
    def check(_: Ended) -> None:
        # The hashes match, and the parity record, which is written last, is there.
        assert Bundle.open(target).manifest["parity"]
        load(target, "cpu", 1)  # with its self-test against PyTorch's record

    return check


@pytest.fixture(scope="module")
def model() -> Model:
    return load(NANO, "cpu", 1)


def test_state(server: Server, folder: Path, model: Model) -> None:
    """A killed stream resumes from its last save as if it had never stopped."""
    session = model.session()
    session.feed(PROMPT)
    begin = session.position
    whole = "".join(session.stream(seed=5, max_new_tokens=TOKENS))
    places = set()

    def check(ended: Ended) -> None:
        restored = model.restore(folder / "stream")
        done = restored.position - begin
        places.add(done)
        if ended.status != 0:
            assert "".join(restored.resume(min(10, TOKENS - done))) == whole[done : done + 10]
            return
        assert done == TOKENS
        assert not temporaries(folder)
        fresh = model.session()  # start over, with a first save in place
        fresh.feed(PROMPT)
        next(iter(fresh.stream(seed=5, max_new_tokens=TOKENS)))
        fresh.save(folder / "stream")

    kill_often(server, "state", folder, kills(12), check)
    assert len(places) > 2


def test_engine(server: Server, folder: Path) -> None:
    """The last good engine stays until the next is whole. Without TensorRT, random bytes do."""
    sys.stdout.write(f"engine build: {tensorrt_obstacle() or 'TensorRT builds'}\n")
    shutil.copytree(NANO, folder / "model")
    bundle = Bundle.open(folder / "model")

    def check(ended: Ended) -> None:
        records = find_records(bundle)
        assert records, "the last good engine is gone"
        for record in records:
            record.read()
            assert record.sha256 == sha256_file(record.path)
        if ended.status == 0:
            left = [file.suffix for file in (folder / "model.engines").iterdir()]
            assert sorted(left) in ([".engine", ".json"], [".cache", ".engine", ".json"])

    kill_often(server, "engine", folder, kills(12), check)

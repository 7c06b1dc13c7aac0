"""What rillet writes, done in processes of their own that can be killed at any moment.

Run as a program, it is a small server: it imports everything once and forks for each operation,
so that hundreds of real processes can be killed without importing torch hundreds of times.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
NANO = ROOT / "models" / "shakespeare-nano"
PROMPT = "ROMEO: But soft, what light"
TOKENS = 120

_SMALL = {
    "code_width": 8, "reservoir_size": 24, "width": 12, "attention_heads": 3,
    "attention_window": 7, "wave_kernel": 3, "wave_features": 10, "wave_window": 5,
    "readout_blocks": 2, "hidden": 16, "memory": 20, "key_width": 9, "gate_hidden": 4,
    "reservoir_density": 0.4, "batch": 4, "chunk": 32, "validate_every": 3,
    "checkpoint_every": 2, "precision": "fp32",
}  # fmt: skip


def train(folder: Path) -> None:
    """``rillet train``; a run that was interrupted is resumed."""
    if (folder / "run" / "training.safetensors").exists():
        go_on = ["--resume"]
    else:
        go_on = ["--overwrite"] if (folder / "run").exists() else []
    settings = [part for name, value in _SMALL.items() for part in ("--set", f"{name}={value}")]
    _rillet("train", "--corpus", folder / "corpus.txt", "--out", folder / "run", "--steps", 12,
            "--threads", 1, "--no-plot", *settings, *go_on)  # fmt: skip


def export(folder: Path) -> None:
    """``rillet export``. Its graphs, whose building writes nothing, are taken from ``models/``."""
    import onnx

    from rillet.export.bundle import writer as bundle_writer

    kinds = ("decode", "prefill", "generate")
    bundle_writer._graphs = lambda *_: {kind: onnx.load(NANO / f"{kind}.onnx") for kind in kinds}
    run = ROOT / "models" / "checkpoints" / NANO.name
    _rillet("export", run, "--out", folder / "bundle", "--parity-steps", 50)


def quantize(folder: Path) -> None:
    """``rillet quantize``."""
    _rillet("quantize", NANO, "--precision", "int8", "--out", folder / "int8", "--tokens", 300,
            "--text", folder / "corpus.txt", "--max-loss-rise", 1)  # fmt: skip


def state(folder: Path) -> None:
    """A stream that saves itself after each few tokens, and goes on where it was saved."""
    from rillet.runtime import load

    path = folder / "stream"
    model = load(NANO, "cpu", 1, self_test=False)
    if path.exists():
        session = model.restore(path)
        stream = session.resume()
    else:
        session = model.session()
        session.feed(PROMPT)
        stream = session.stream(seed=5, max_new_tokens=TOKENS)
    for number, _ in enumerate(stream):
        if number % 4 == 3:
            session.save(path)
    session.save(path)


def stubborn(folder: Path) -> None:
    """A stream whose saves may fail, and that goes on."""
    from rillet.runtime import StorageError, load

    session = load(NANO, "cpu", 1, self_test=False).session()
    session.feed(PROMPT)
    for number, piece in enumerate(session.stream(seed=5, max_new_tokens=TOKENS)):
        sys.stdout.write(piece)
        if number % 4 == 3:
            try:
                session.save(folder / "stream")
            except StorageError:
                sys.stderr.write("#")


def generate(folder: Path) -> None:
    """``rillet generate --save-state``."""
    _rillet("generate", NANO, PROMPT, "--max-new-tokens", 20, "--seed", 5, "--threads", 1,
            "--save-state", folder / "state")  # fmt: skip


def engine(folder: Path) -> None:
    """``rillet engine build --rebuild``, or without TensorRT what it does with the engine."""
    os.environ["XDG_CACHE_HOME"] = str(folder)  # where engines go that cannot lie beside a bundle
    if tensorrt_obstacle() is None:
        _rillet("engine", "build", folder / "model", "--graph", "decode", "--rebuild")
        return
    from rillet.runtime.bundle import Bundle
    from rillet.runtime.engines.cache import cache_folder
    from rillet.runtime.engines.engine_key import EngineKey
    from rillet.runtime.engines.tensorrt.records import save_engine

    key = EngineKey("decode", "a" * 64, "fp32", "tensorrt 10.3.0", "Orin", "8.7", "12.6", "linux")
    place = cache_folder(Bundle.open(folder / "model"))
    for _ in range(4):  # each another: no two builds give the same bytes
        save_engine(place, os.urandom(1 << 20), key, 1.0)


def tensorrt_obstacle() -> str | None:
    """Why no engine can be built here; ``None`` where one can."""
    from rillet.runtime import EngineError
    from rillet.runtime.engines.tensorrt.api import find_tensorrt

    try:
        find_tensorrt(None, build=True)
    except EngineError as error:
        return str(error)
    return None


OPERATIONS: dict[str, Callable[[Path], None]] = {
    made.__name__: made for made in (train, export, quantize, state, stubborn, generate, engine)
}


def _rillet(*arguments: object) -> None:
    from rillet.runtime.cli.entry import main

    main([str(argument) for argument in arguments])


@dataclass(frozen=True)
class Ended:
    """How an operation ended.

    Attributes:
        status: Its exit status; -9 where it was killed.
        said: What it wrote to stdout and stderr.
        seconds: How long it ran.
        events: How often it opened, moved or removed something in its folder.
    """

    status: int
    said: str
    seconds: float
    events: int

    @property
    def killed(self) -> bool:
        """Whether it was killed before its end."""
        return self.status == -signal.SIGKILL


class Server:
    """Runs operations, each in a new process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, operation: str, folder: Path, **how: Any) -> Ended:
        """Run one.

        Args:
            operation: Its name.
            folder: What it works in.
            how: ``after``: kill it after so many seconds; ``event``: or before it opens, moves or
                removes something for the so manieth time; ``largest``: bytes that a file may
                have; ``user``: number of the user to be.
        """
        request = {"operation": operation, "folder": str(folder), **how}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return Ended(**json.loads(self._process.stdout.readline()))


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """Start a server; end it."""
    tests = str(Path(__file__).parents[1])
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": tests,
    }
    with subprocess.Popen(
        [sys.executable, "-m", "support.operations"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        try:
            yield Server(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()


def _serve() -> None:
    import onnx  # noqa: F401
    import onnxruntime  # noqa: F401

    import rillet.export.cli.export
    import rillet.export.cli.quantize
    import rillet.runtime.cli.generate
    import rillet.train.cli.train  # noqa: F401

    for line in sys.stdin:
        request = json.loads(line)
        sys.stdout.write(json.dumps(_run(**request)) + "\n")
        sys.stdout.flush()


def _run(operation: str, folder: str, after: float | None = None, **how: Any) -> dict[str, Any]:
    reading, writing = os.pipe()
    heard, speaking = os.pipe()
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.close(heard)
        _do(operation, Path(folder), writing, speaking, **how)
    os.close(writing)
    os.close(speaking)
    if after is not None:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    with open(reading, "rb") as counts, open(heard, "rb") as texts:  # until the child is gone
        said = texts.read().decode(errors="replace")
        events = len(counts.read())
    _, status = os.waitpid(child, 0)
    return {
        "status": os.waitstatus_to_exitcode(status), "said": said,
        "seconds": time.monotonic() - began, "events": events,
    }  # fmt: skip


def _do(
    operation: str, folder: Path, counts: int, speaking: int, event: int | None = None,
    largest: int | None = None, user: int | None = None,
) -> None:  # fmt: skip
    """The child: never returns."""
    status = 1
    try:
        os.dup2(speaking, 1)
        os.dup2(speaking, 2)
        os.set_blocking(counts, False)
        inside, done = os.fsencode(folder), 0

        def watch(name: str, arguments: tuple[Any, ...]) -> None:
            nonlocal done
            if name not in _EVENTS or not arguments:
                return
            path = arguments[0]
            if isinstance(path, int) or inside not in os.fsencode(path):
                return
            done += 1
            if done == event:
                os.kill(os.getpid(), signal.SIGKILL)
            with contextlib.suppress(BlockingIOError):
                os.write(counts, b".")

        if largest is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
        if user is not None:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
        sys.addaudithook(watch)
        OPERATIONS[operation](folder)
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    except BaseException as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


_EVENTS = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.scandir", "shutil.rmtree")


if __name__ == "__main__":
    _serve()

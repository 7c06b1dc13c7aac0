"""Running operations in processes that can be killed at any moment.

Run as a program, this is a small server: it imports everything once and forks for each operation,
so that tests can kill hundreds of real processes without importing torch hundreds of times.
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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from .operations import OPERATIONS

__all__ = ["Ended", "Server", "serving"]


@dataclass(frozen=True)
class Ended:
    """The end of an operation.

    Attributes:
        status: Exit status; -9 if it was killed.
        said: The text that it wrote to stdout and stderr.
        seconds: Its run time.
        events: Number of times that it opened, moved or removed a file in its folder.
    """

    status: int
    said: str
    seconds: float
    events: int

    @property
    def killed(self) -> bool:
        """Whether the operation was killed."""
        return self.status == -signal.SIGKILL


class Server:
    """Runs each operation in a new process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, operation: str, folder: Path, **how: Any) -> Ended:
        """Run an operation.

        Args:
            operation: A name in :data:`.OPERATIONS`.
            folder: The folder to work in.
            how: ``after``, the seconds after which to kill it; ``event``, the number of the file
                event (open, move or remove) before which to kill it; ``largest``, the limit of a
                file's size in bytes; ``user``, the id of the user to run as.
        """
        request = {"operation": operation, "folder": str(folder), **how}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return Ended(**json.loads(self._process.stdout.readline()))


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """Start a server, and stop it at the end."""
    tests = str(Path(__file__).parents[1])
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": tests,
    }
    with subprocess.Popen(
        [sys.executable, "-m", "support.fork_server"],
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
    events_in, events_out = os.pipe()
    text_in, text_out = os.pipe()
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(events_in)
        os.close(text_in)
        _run_child(operation, Path(folder), events_out, text_out, **how)
    os.close(events_out)
    os.close(text_out)
    if after is not None:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    with open(events_in, "rb") as events, open(text_in, "rb") as text:  # until the child ends
        said = text.read().decode(errors="replace")
        count = len(events.read())
    _, status = os.waitpid(child, 0)
    return {
        "status": os.waitstatus_to_exitcode(status),
        "said": said,
        "seconds": time.monotonic() - start,
        "events": count,
    }


def _run_child(
    operation: str,
    folder: Path,
    events: int,
    text: int,
    event: int | None = None,
    largest: int | None = None,
    user: int | None = None,
) -> NoReturn:
    """Run an operation in the child process, and exit."""
    status = 1
    try:
        os.dup2(text, 1)
        os.dup2(text, 2)
        os.set_blocking(events, False)
        inside, count = os.fsencode(folder), 0

        def watch(name: str, arguments: tuple[Any, ...]) -> None:
            nonlocal count
            if name not in _EVENTS or not arguments:
                return
            path = arguments[0]
            if isinstance(path, int) or inside not in os.fsencode(path):
                return
            count += 1
            if count == event:
                os.kill(os.getpid(), signal.SIGKILL)
            with contextlib.suppress(BlockingIOError):
                os.write(events, b".")

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

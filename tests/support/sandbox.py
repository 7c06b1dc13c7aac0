"""Limits on code that reads an untrusted file: what it may open, use and report."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rillet.runtime import RilletError

__all__ = ["attempt", "little_memory", "watching"]

SECONDS = 30
"""CPU seconds for one case; most take a few milliseconds."""

_WRITES = (
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.mkdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.chmod",
    "os.chown",
    "shutil.rmtree",
    "shutil.move",
)
_NEVER = (
    "subprocess.Popen",
    "os.exec",
    "os.posix_spawn",
    "os.system",
    "os.fork",
    "pty.spawn",
    "pickle.find_class",
    "socket.connect",
    "socket.bind",
    "socket.getaddrinfo",
    "urllib.Request",
    "shutil.unpack_archive",
)
_LIBRARIES = tuple(
    os.path.realpath(path)
    for path in (sys.prefix, sys.base_prefix, str(Path(__file__).parents[2]), *sys.path)
    if path
)
_DEVICES = ("/dev/null", "/dev/urandom", "/proc/", "/sys/", "/etc/localtime")

_MOVES = ("os.rename", "os.link", "os.symlink", "shutil.move")
"""Writes to their second path, too."""

_folder: str | None = None
_breaches: list[str] = []


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _folder is None:
        return
    if event in _NEVER:
        _breaches.append(f"{event} {arguments!r}")
    elif event == "ctypes.dlopen":
        if arguments[0] is not None:
            _breaches.append(f"loads a library: {arguments[0]!r}")
    elif event in _WRITES:
        paths = arguments[:2] if event in _MOVES else arguments[:1]
        if not all(_inside(path, (_folder,)) for path in paths):
            _breaches.append(f"{event} {arguments!r}")
    elif event == "open" and not isinstance(arguments[0], int):
        path, mode, flags = arguments
        writes = any(letter in str(mode or "") for letter in "wax+")
        writes |= bool(mode is None and (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        allowed = (_folder,) if writes else (_folder, *_LIBRARIES, *_DEVICES)
        if not _inside(path, allowed):
            _breaches.append(f"open {path!r} {mode!r} {flags!r}")


def _inside(path: Any, folders: tuple[str, ...]) -> bool:
    if isinstance(path, int):
        return True
    try:
        whole = os.path.realpath(os.fsdecode(path))
    except ValueError:  # a path with a zero byte cannot be opened
        return True
    return any(whole == f or whole.startswith(f.rstrip("/") + "/") for f in folders)


sys.addaudithook(_watch)


@contextlib.contextmanager
def watching(folder: Path) -> Iterator[list[str]]:
    """Record every forbidden open, write, load or start of a process.

    Args:
        folder: The folder that may be read and written; libraries may be read.

    Yields:
        The list of breaches, which grows.
    """
    global _folder
    _breaches.clear()
    _folder = os.path.realpath(folder)
    try:
        yield _breaches
    finally:
        _folder = None


def attempt(what: str, call: Callable[[], Any], folder: Path | None = None) -> str | None:
    """Call code that may succeed, or fail with a :class:`RilletError`.

    Args:
        what: A description of the case, for the message.
        call: The code.
        folder: The folder that it may read and write; unchecked when absent.

    Returns:
        What went wrong; ``None`` if nothing did.
    """
    before = signal.signal(signal.SIGPROF, _too_long)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if folder is None:
                call()
            else:
                with watching(folder):
                    call()
    except RilletError as error:  # breaches still count
        if not str(error).strip() or len(str(error)) > 4000:
            return f"{what}: the message is {str(error)[:300]!r}"
    except BaseException:
        return f"{what}\n{traceback.format_exc()}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    if folder is not None and _breaches:
        return f"{what}: {'; '.join(_breaches)}"
    return None


class TooLong(BaseException):
    """A case takes too long."""


def _too_long(number: int, frame: Any) -> None:
    raise TooLong(f"more than {SECONDS} seconds")


@contextlib.contextmanager
def little_memory(more: int = 3 << 30) -> Iterator[str | None]:
    """Limit the address space to its current size and ``more`` bytes.

    Yields:
        Why this system cannot do that; ``None`` where it can.
    """
    size = Path("/proc/self/statm")
    try:
        import resource
    except ImportError:
        yield "this system cannot limit memory"
        return
    if not size.exists():
        yield "this system does not report the size of a process"
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(size.read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + more, hard))
    try:
        yield None
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))

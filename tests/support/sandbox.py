"""Limits on what code may do, use and say while it reads an untrusted file."""

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
"""CPU time for one case; most take milliseconds."""

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
    os.path.realpath(place)
    for place in (sys.prefix, sys.base_prefix, Path(__file__).parents[2], *sys.path)
    if place
)
_DEVICES = ("/dev/null", "/dev/urandom", "/proc/", "/sys/", "/etc/localtime")

_place: str | None = None
_breaches: list[str] = []


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _place is None:
        return
    if event in _NEVER:
        _breaches.append(f"{event} {arguments!r}")
    elif event == "ctypes.dlopen":
        if arguments[0] is not None:
            _breaches.append(f"a library is loaded: {arguments[0]!r}")
    elif event in _WRITES:
        if not _inside(arguments[0], (_place,)):
            _breaches.append(f"{event} {arguments!r}")
    elif event == "open" and not isinstance(arguments[0], int):
        path, mode, flags = arguments
        writes = any(mark in str(mode or "") for mark in "wax+")
        writes |= bool(mode is None and (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        places = (_place,) if writes else (_place, *_LIBRARIES, *_DEVICES)
        if not _inside(path, places):
            _breaches.append(f"open {path!r} {mode!r} {flags!r}")


def _inside(path: Any, places: tuple[str, ...]) -> bool:
    if isinstance(path, int):
        return True
    try:
        whole = os.path.realpath(os.fsdecode(path))
    except ValueError:  # a zero in it: it cannot be opened
        return True
    return any(whole == place or whole.startswith(place.rstrip("/") + "/") for place in places)


sys.addaudithook(_watch)


@contextlib.contextmanager
def watching(folder: Path) -> Iterator[list[str]]:
    """Record every file, library or process that is used without permission.

    Args:
        folder: What may be read and written; libraries may be read.

    Yields:
        The list of breaches so far.
    """
    global _place
    _breaches.clear()
    _place = os.path.realpath(folder)
    try:
        yield _breaches
    finally:
        _place = None


def attempt(what: str, call: Callable[[], Any], folder: Path | None = None) -> str | None:
    """Call something; ``None`` if it succeeds or fails with a proper error, else the problem.

    Args:
        what: A description for the message.
        call: What to call.
        folder: The only folder that it may read and write; not checked when absent.
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
    except RilletError as error:  # a breach counts all the same
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
    """A case has used up its CPU time."""


def _too_long(number: int, frame: Any) -> None:
    raise TooLong(f"more than {SECONDS} seconds")


@contextlib.contextmanager
def little_memory(more: int = 3 << 30) -> Iterator[str | None]:
    """Limit memory to a few gigabytes more than now.

    Yields:
        Why this system cannot do that, or ``None``.
    """
    size = Path("/proc/self/statm")
    try:
        import resource
    except ImportError:
        yield "this system cannot limit memory"
        return
    if not size.exists():
        yield "this system does not tell a process its size"
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(size.read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + more, hard))
    try:
        yield None
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))

"""Hashing, and writing that leaves the old file or the new one, never half of one.

What is written goes to a temporary file or folder beside its place, and is moved there when it is
whole and on the disk. A process that is killed leaves its temporaries behind; whoever writes the
same thing next removes them. A writer that lives holds a lock on its own, and they stay.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import re
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from .errors import StorageError

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows: dead temporaries stay there
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "make_folder",
    "replace_file",
    "replace_folder",
    "scratch_folder",
    "sha256_bytes",
    "sha256_file",
    "write_atomic",
]


def sha256_bytes(data: bytes) -> str:
    """SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """SHA-256 of a file, read in blocks, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that a crash leaves the old content or the new.

    Args:
        path: The file; its folder must exist.
        data: The new content.

    Raises:
        StorageError: It cannot be written, as on a full disk; the old file is as it was.
    """
    with replace_file(path) as file:
        file.write(data)


@contextmanager
def replace_file(path: Path) -> Iterator[BinaryIO]:
    """A new file to fill, that takes the place of ``path`` when all is well, and else vanishes.

    Args:
        path: The file; its folder must exist.

    Yields:
        The new file, empty.

    Raises:
        StorageError: It cannot be written, as on a full disk; the old file is as it was.
    """
    with _refusing(path):
        _remove_dead(path)
        fresh, handle = _locked(path, _new_file)
        assert handle is not None
        lock = None if fcntl is None else os.dup(handle)  # held past closing, until the move
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(fresh, path)
            _sync_folder(path.parent)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise
        finally:
            if lock is not None:
                os.close(lock)


@contextmanager
def replace_folder(target: Path) -> Iterator[Path]:
    """Fill a new folder beside ``target`` and put it in its place when all is well.

    The caller has made sure that whatever is at ``target`` may be replaced. If the
    body raises, the new folder is removed and ``target`` is as it was.

    Args:
        target: The folder to create or replace.

    Yields:
        An empty folder to fill.

    Raises:
        StorageError: It cannot be written, as on a full disk; ``target`` is as it was.
    """
    with scratch_folder(target) as fresh:
        yield fresh
        with _refusing(target):
            for file in fresh.iterdir():
                with file.open("rb") as opened:
                    os.fsync(opened.fileno())
            _sync_folder(fresh)
            _put(fresh, target)
            _sync_folder(target.parent)


@contextmanager
def scratch_folder(target: Path) -> Iterator[Path]:
    """A folder beside ``target`` to work in, which is removed at the end, well or not.

    Args:
        target: What is made with it; the folder that it lies in is made if it is missing.

    Yields:
        The folder, empty.

    Raises:
        StorageError: It, or a file in it, cannot be written.
    """
    make_folder(target.parent)
    with _refusing(target):
        _remove_dead(target)
        fresh, lock = _locked(target, _new_folder)
    try:
        yield fresh
    except StorageError as error:  # of a file in it, under a name that nobody gave
        raise _refusal(target, error) from error
    finally:
        # Of replace_folder: gone if it was moved; the old folder if the two changed places.
        shutil.rmtree(fresh, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, as far as they are missing, and see them to the disk.

    Raises:
        StorageError: It cannot be made.
    """
    with _refusing(path):
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
        for folder in missing:
            _sync_folder(folder.parent)


def _put(fresh: Path, target: Path) -> None:
    """Move a folder to its place; what was there is at ``fresh`` then, or gone."""
    if not target.exists():
        os.rename(fresh, target)
    elif not _exchange(fresh, target):
        # No atomic exchange on this system: the old folder is whole at all times,
        # for a moment under another name.
        aside = fresh.with_suffix(".old")
        os.rename(target, aside)
        os.rename(fresh, target)
        shutil.rmtree(aside, ignore_errors=True)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two paths in one step (Linux's ``RENAME_EXCHANGE``); False where it cannot."""
    if not sys.platform.startswith("linux"):
        return False
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    if renameat2 is None:
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    done = renameat2(here, os.fsencode(first), here, os.fsencode(second), ctypes.c_uint(exchange))
    return bool(done == 0)


def _sync_folder(path: Path) -> None:
    """See to the disk what a folder's entries are: a move that is not there may be undone."""
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network disks cannot
            raise
    finally:
        os.close(handle)


def _new_file(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    return os.open(path, flags, 0o666)


def _new_folder(path: Path) -> int | None:
    path.mkdir()
    return os.open(path, os.O_RDONLY) if os.name == "posix" else None


def _locked(path: Path, make: Callable[[Path], int | None]) -> tuple[Path, int | None]:
    """Make a temporary for a path; the lock on it is held until the handle is closed."""
    while True:
        fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
        handle = make(fresh)
        if handle is None or fcntl is None:
            return fresh, handle
        with suppress(OSError):  # without locks on this disk, nobody removes anything
            fcntl.flock(handle, fcntl.LOCK_EX)
        # Somebody may have found it before it was locked, and removed it.
        with suppress(OSError):
            if os.path.samestat(os.fstat(handle), os.lstat(fresh)):
                return fresh, handle
        os.close(handle)


def _remove_dead(path: Path) -> None:
    """Remove what killed writers of a path left behind; never what a living one is at."""
    if fcntl is None:
        return
    ours = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{16}}\.(tmp|old)")
    with suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            if entry.name[0] == "." and ours.fullmatch(entry.name):
                folder = entry.is_dir(follow_symlinks=False)
                if folder or entry.is_file(follow_symlinks=False):
                    with suppress(OSError):
                        _remove_if_dead(Path(entry.path), folder, path)


def _remove_if_dead(left: Path, folder: bool, target: Path) -> None:
    handle = os.open(left, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while its writer lives
        if not folder:
            left.unlink()
        elif left.suffix == ".old" and not os.path.lexists(target):
            os.rename(left, target)  # killed in the moment between the two moves
        else:
            shutil.rmtree(left, ignore_errors=True)
    finally:
        os.close(handle)


_ADVICE = {
    errno.ENOSPC: "free some space, or choose another place",
    errno.EDQUOT: "free some space, or choose another place",
    errno.EFBIG: "raise the limit on the size of a file (ulimit -f), or choose another place",
    errno.ENOENT: "make its folder first",
}
"""What to do about a failed write, by its number."""


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Make an error of the system one of rillet's, about the path that was given."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise _refusal(path, error) from error


def _refusal(path: Path, error: OSError) -> StorageError:
    number = error.errno or 0
    advice = _ADVICE.get(number, "choose a place that can be written in")
    reason = os.strerror(number) if number else str(error)
    refusal = StorageError(f"{path} cannot be written ({reason}), and is as it was; {advice}")
    refusal.errno = error.errno
    return refusal

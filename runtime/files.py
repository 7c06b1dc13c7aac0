"""Hashing, and atomic writes: the old file or the new one survives a crash, never half of one.

Data goes to a temporary file or folder beside the target, and is moved into place once it is
complete and synced to disk. A killed process leaves its temporaries behind; the next writer of the
same target removes them. A running writer holds a lock on its own temporaries, so they stay.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from .errors import StorageError, UsageError

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows: stale temporaries stay there
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "as_path",
    "check_writable",
    "make_folder",
    "replace_file",
    "replace_folder",
    "scratch_folder",
    "sha256_bytes",
    "sha256_file",
    "write_atomic",
]


def as_path(value: object) -> Path:
    """What a caller gave as a path.

    Raises:
        UsageError: It can be none on this system.
    """
    try:
        if isinstance(value, str | os.PathLike) and "\0" not in (text := os.fspath(value)):
            os.fsencode(text)
            return Path(text)
    except (TypeError, ValueError):  # a path of bytes, or characters that no path has
        pass
    raise UsageError(
        f"the path is {value!r}; it must be a text or a pathlib.Path that can name a file here"
    )


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
    """Write a file atomically: a crash leaves either the old content or the new.

    Args:
        path: The file; its folder must exist.
        data: The new content.

    Raises:
        StorageError: The file cannot be written, for example on a full disk; the old file is
            unchanged.
    """
    with replace_file(path) as file:
        file.write(data)


def check_writable(path: Path) -> None:
    """Refuse a path that :func:`replace_file` could not write, before the work for it begins.

    A new file beside it is made and removed at once: no other check is as sure.

    Args:
        path: The file.

    Raises:
        StorageError: It cannot be written.
    """
    with _storage_errors(path):
        path = Path(os.path.realpath(path))
        old = _status(path)
        if old is not None and not stat.S_ISREG(old.st_mode):
            _check_special(path, old)
            return
        fresh, handle = _new_locked(path, _new_file)
        assert handle is not None
        fresh.unlink(missing_ok=True)
        os.close(handle)


@contextmanager
def replace_file(path: Path) -> Iterator[BinaryIO]:
    """Open a new file that replaces ``path`` on success and is removed if the body raises.

    Only a regular file is replaced, and its mode and owner are kept. The target of a symbolic link
    is replaced, not the link. A device or a pipe is written through; anything else is refused.

    Args:
        path: The file; its folder must exist.

    Yields:
        The new, empty file.

    Raises:
        StorageError: The file cannot be written, for example on a full disk; the old file is
            unchanged.
    """
    with _storage_errors(path):
        path = Path(os.path.realpath(path))
        old = _status(path)
        if old is not None and not stat.S_ISREG(old.st_mode):
            with _special_file(path, old) as file:
                yield file
            return
        _remove_stale(path)
        fresh, handle = _new_locked(path, _new_file)
        assert handle is not None
        _keep_access(handle, old)
        lock = None if fcntl is None else os.dup(handle)  # kept after closing, until the move
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
    """Fill a new folder beside ``target`` that replaces it on success.

    The caller has checked that whatever is at ``target`` may be replaced. If the body raises, the
    new folder is removed and ``target`` is unchanged.

    Args:
        target: The folder to create or replace.

    Yields:
        An empty folder to fill.

    Raises:
        StorageError: The folder cannot be written, for example on a full disk; ``target`` is
            unchanged.
    """
    with _storage_errors(target):
        target = Path(os.path.realpath(target))
    with scratch_folder(target) as fresh:
        yield fresh
        with _storage_errors(target):
            if (old := _status(target)) is not None:
                fresh.chmod(stat.S_IMODE(old.st_mode))
            for path in fresh.rglob("*"):
                if path.is_dir():
                    _sync_folder(path)
                    continue
                with path.open("rb") as opened:
                    os.fsync(opened.fileno())
            _sync_folder(fresh)
            _move_into_place(fresh, target)
            _sync_folder(target.parent)


@contextmanager
def scratch_folder(target: Path) -> Iterator[Path]:
    """Create a temporary folder beside ``target`` and remove it at the end, even on an error.

    Args:
        target: The path that the folder's contents are for; its parent is created if missing.

    Yields:
        The empty folder.

    Raises:
        StorageError: The folder, or a file in it, cannot be written.
    """
    make_folder(target.parent)
    with _storage_errors(target):
        _remove_stale(target)
        fresh, lock = _new_locked(target, _new_folder)
    try:
        yield fresh
    except StorageError as error:  # names a temporary file that the user never saw
        raise _storage_error(target, error) from error
    finally:
        # After replace_folder: gone if it was moved; the old folder if the two were swapped.
        shutil.rmtree(fresh, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def make_folder(path: Path) -> None:
    """Create a folder and any missing parents, and sync them to disk.

    Raises:
        StorageError: The folder cannot be created.
    """
    with _storage_errors(path):
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
        for folder in missing:
            _sync_folder(folder.parent)


def _move_into_place(fresh: Path, target: Path) -> None:
    """Move a folder to ``target``; the old folder is then at ``fresh``, or removed."""
    if not target.exists():
        os.rename(fresh, target)
    elif not _exchange(fresh, target):
        # No atomic exchange on this system: the old folder stays complete throughout, but briefly
        # has another name.
        aside = fresh.with_suffix(".old")
        os.rename(target, aside)
        os.rename(fresh, target)
        shutil.rmtree(aside, ignore_errors=True)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two paths in one step (Linux's ``RENAME_EXCHANGE``); False if unsupported."""
    if not sys.platform.startswith("linux"):
        return False
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    if renameat2 is None:
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    done = renameat2(here, os.fsencode(first), here, os.fsencode(second), ctypes.c_uint(exchange))
    return bool(done == 0)


def _sync_folder(path: Path) -> None:
    """Sync a folder's entries to disk: until then, a crash may undo a move."""
    if os.name != "posix":
        return
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:  # may be written, and not read: the move is done, and cannot be synced
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # unsupported on some network disks
            raise
    finally:
        os.close(handle)


def _status(path: Path) -> os.stat_result | None:
    """The status of a path; ``None`` if there is nothing."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _keep_access(handle: int, old: os.stat_result | None) -> None:
    """Give a new file the mode and owner of the one that it will replace."""
    if old is None or os.name != "posix":
        return
    with suppress(OSError):  # only root gives files away
        os.fchown(handle, old.st_uid, old.st_gid)
    os.fchmod(handle, stat.S_IMODE(old.st_mode))


def _check_special(path: Path, status: os.stat_result) -> None:
    """Refuse what is neither a device nor a pipe.

    Raises:
        StorageError: It is neither.
    """
    if not (stat.S_ISCHR(status.st_mode) or stat.S_ISFIFO(status.st_mode)):
        kinds = {stat.S_IFDIR: "folder", stat.S_IFSOCK: "socket", stat.S_IFBLK: "block device"}
        kind = kinds.get(stat.S_IFMT(status.st_mode), "special file")
        raise StorageError(f"{path} is a {kind}; choose the path of a file")


@contextmanager
def _special_file(path: Path, status: os.stat_result) -> Iterator[BinaryIO]:
    """Write to a device or a pipe as it is; refuse anything else."""
    _check_special(path, status)
    with path.open("wb", buffering=0) as file:
        yield file


def _new_file(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    return os.open(path, flags, 0o666)


def _new_folder(path: Path) -> int | None:
    path.mkdir()
    return os.open(path, os.O_RDONLY) if os.name == "posix" else None


def _new_locked(path: Path, create: Callable[[Path], int | None]) -> tuple[Path, int | None]:
    """Create a temporary for a path; closing the returned handle releases its lock."""
    while True:
        fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
        handle = create(fresh)
        if handle is None or fcntl is None:
            return fresh, handle
        with suppress(OSError):  # on a disk without locks, nobody removes anything
            fcntl.flock(handle, fcntl.LOCK_EX)
        # Another writer may have removed it before it was locked.
        with suppress(OSError):
            if os.path.samestat(os.fstat(handle), os.lstat(fresh)):
                return fresh, handle
        os.close(handle)


def _remove_stale(path: Path) -> None:
    """Remove the temporaries of killed writers of a path, never those of a running one."""
    if fcntl is None:
        return
    ours = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{16}}\.(tmp|old)")
    with suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            if entry.name[0] == "." and ours.fullmatch(entry.name):
                is_folder = entry.is_dir(follow_symlinks=False)
                if is_folder or entry.is_file(follow_symlinks=False):
                    with suppress(OSError):
                        _remove_if_stale(Path(entry.path), is_folder, path)


def _remove_if_stale(stale: Path, is_folder: bool, target: Path) -> None:
    handle = os.open(stale, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while its writer is running
        if not is_folder:
            stale.unlink()
        elif stale.suffix == ".old" and not os.path.lexists(target):
            os.rename(stale, target)  # its writer was killed between the two renames
        else:
            shutil.rmtree(stale, ignore_errors=True)
    finally:
        os.close(handle)


_ADVICE = {
    errno.ENOSPC: "free some space, or choose another place",
    errno.EDQUOT: "free some space, or choose another place",
    errno.EFBIG: "raise the file size limit (ulimit -f), or choose another place",
    errno.ENOENT: "create its folder first",
}
"""What to do about a failed write, by errno."""


@contextmanager
def _storage_errors(path: Path) -> Iterator[None]:
    """Turn an operating system error into a StorageError that names ``path``."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise _storage_error(path, error) from error


def _storage_error(path: Path, error: OSError) -> StorageError:
    number = error.errno or 0
    advice = _ADVICE.get(number, "choose a writable place")
    reason = os.strerror(number) if number else str(error)
    failure = StorageError(f"{path} cannot be written ({reason}) and is unchanged; {advice}")
    failure.errno = error.errno
    return failure

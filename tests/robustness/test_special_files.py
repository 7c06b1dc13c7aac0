"""Writing onto what is no plain file: nothing but a regular file is ever replaced."""

from __future__ import annotations

import os
import socket
import stat
import threading
from pathlib import Path

import pytest

from rillet.runtime import Model, StorageError
from rillet.runtime.files import replace_file, replace_folder, write_atomic

pytestmark = pytest.mark.skipif(os.name != "posix", reason="POSIX file types and modes")


def test_a_device_is_written_through() -> None:
    before = os.stat("/dev/null")
    write_atomic(Path("/dev/null"), b"a stream")
    after = os.stat("/dev/null")
    assert stat.S_ISCHR(after.st_mode)
    assert (after.st_ino, after.st_rdev) == (before.st_ino, before.st_rdev)


def test_a_pipe_is_written_through(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()))
    reader.start()
    write_atomic(pipe, b"a stream")
    reader.join()
    assert received == [b"a stream"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert list(tmp_path.iterdir()) == [pipe]


def test_a_saved_stream_goes_through_a_pipe(small_model: Model, tmp_path: Path) -> None:
    session = small_model.session()
    session.feed("The ")
    session.save(tmp_path / "state")
    os.mkfifo(tmp_path / "pipe")
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    session.save(tmp_path / "pipe")
    reader.join()
    assert received == [(tmp_path / "state").read_bytes()]


def test_a_socket_and_a_folder_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(StorageError, match=r"folder is a folder; .*file"):
        write_atomic(folder, b"content")
    os.chdir(tmp_path)  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        with pytest.raises(StorageError, match=r"socket is a socket; .*file"):
            write_atomic(tmp_path / "socket", b"content")
        assert stat.S_ISSOCK((tmp_path / "socket").stat().st_mode)


def test_the_target_of_a_link_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "target", tmp_path / "link"
    target.write_bytes(b"old")
    link.symlink_to(target)
    write_atomic(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "elsewhere" / "not yet")
    write_atomic(dangling, b"new")
    assert (tmp_path / "elsewhere" / "not yet").read_bytes() == b"new"


def test_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "link")
    with pytest.raises(StorageError):
        write_atomic(tmp_path / "link", b"content")
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o666])
def test_the_mode_of_a_file_is_kept(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"old")
    file.chmod(mode)
    write_atomic(file, b"new")
    assert stat.S_IMODE(file.stat().st_mode) == mode
    assert file.read_bytes() == b"new"


def test_the_content_is_private_before_it_is_moved(tmp_path: Path) -> None:
    """Nobody who may not read the file may read the temporary that replaces it."""
    file = tmp_path / "file"
    file.write_bytes(b"old")
    file.chmod(0o600)
    with replace_file(file) as fresh:
        fresh.write(b"new")
        (temporary,) = (path for path in tmp_path.iterdir() if path != file)
        assert stat.S_IMODE(temporary.stat().st_mode) == 0o600


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="giving files away takes root")
def test_the_owner_of_a_file_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"old")
    os.chown(file, 1234, 5678)
    file.chmod(0o640)
    write_atomic(file, b"new")
    status = file.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (1234, 5678, 0o640)


def test_a_new_file_has_the_mode_that_the_umask_leaves(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_atomic(tmp_path / "file", b"new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_the_mode_of_a_folder_and_its_link_are_kept(tmp_path: Path) -> None:
    folder, link = tmp_path / "folder", tmp_path / "link"
    folder.mkdir(mode=0o700)
    link.symlink_to(folder)
    with replace_folder(link) as fresh:
        (fresh / "file").write_bytes(b"new")
    assert link.is_symlink()
    assert (folder / "file").read_bytes() == b"new"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700

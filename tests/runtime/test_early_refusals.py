"""A place that cannot be written is refused before the work whose result goes there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rillet.runtime import StorageError
from rillet.runtime.files import check_writable
from support.command_line import here

NANO = Path(__file__).parents[2] / "models" / "shakespeare-nano"


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("no/state", "No such file or directory.* create its folder first"),
        ("folder", "is a folder; choose the path of a file"),
        ("file/state", "Not a directory"),
        ("x" * 300, "File name too long"),
    ],
)
def test_no_text_is_written_that_could_not_be_saved(
    tmp_path: Path, place: str, reason: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("kept")
    with pytest.raises(StorageError, match=reason):
        check_writable(tmp_path / place)
    result = here("generate", NANO, "ROMEO:", "--seed", 1, "--save-state", tmp_path / place)
    assert (result.returncode, result.stdout) == (1, "")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder"]


def test_no_picture_is_drawn_that_could_not_be_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rillet.export.inspect import picture

    monkeypatch.setattr(picture, "look_inside", lambda *_: pytest.fail("it has begun"))
    with pytest.raises(StorageError, match="create its folder first"):
        picture.draw_inside(NANO, tmp_path / "no" / "picture.png")


def test_no_text_is_taught_to_a_bundle_that_could_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rillet.export.bundle import writer
    from rillet.export.options import ExportOptions
    from rillet.train import load_checkpoint

    monkeypatch.setattr(writer, "taught_for", lambda *_: pytest.fail("it has begun"))
    (tmp_path / "file").write_text("kept")
    run = load_checkpoint(NANO.parent / "checkpoints" / NANO.name)
    options = ExportOptions(teach=(str(tmp_path / "file"),))
    with pytest.raises(StorageError, match="cannot be written"):
        writer.write_bundle(run, tmp_path / "file" / "bundle", options=options)


def test_a_place_that_can_be_written_is_left_alone(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("kept")
    os.symlink(file, link)
    for path in (file, link, tmp_path / "new", Path("/dev/null")):
        check_writable(path)
    assert file.read_text() == "kept"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "link"]

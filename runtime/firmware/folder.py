"""The folder of C files: what lies in it, and where it comes from."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from ..errors import UsageError
from ..files import replace_folder
from .c_source import weights_header, weights_source
from .packing import Packed
from .readme import readme

__all__ = ["LIBRARY_SOURCES", "write_folder"]

LIBRARY_SOURCES = (
    *("api", "decode", "draw", "encode", "json", "kernels_plain", "layout", "random"),
    *("restore", "save", "saved", "sha256", "sort", "state", "tensors", "tokens", "words"),
)
"""Files of the library that a device needs: all that does not load, pack or search."""

_SHARED = ("main.c", "selftest.c", "board.h", "device.c", "device.h", "slots.c", "slots.h")


def write_folder(packed: Packed, target: str, out: Path) -> None:
    """Write the folder.

    Args:
        packed: The model.
        target: The name of a target, which the folder builds by default.
        out: The folder to make; it must not exist, or be empty.

    Raises:
        UsageError: There is something in the way.
        StorageError: The folder cannot be written.
    """
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise UsageError(f"{out} exists and is not an empty folder; choose another --out")
    files = {
        "weights.c": weights_source(packed),
        "weights.h": weights_header(packed),
        "lib/model.txt": f"{packed.flags}\n",
        "README.md": readme(packed, target),
        **_templates(target),
        **_library(),
    }
    with replace_folder(out) as folder:
        for name, content in files.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content, encoding="utf-8", newline="\n")


def _templates(target: str) -> dict[str, str]:
    """Files that are the same for every model, but for the target that they build."""
    root = resources.files("rillet.native") / "firmware"
    built = target if (root / "targets" / f"{target}.txt").is_file() else "generic"
    files = {name: (root / name).read_text("utf-8") for name in _SHARED}
    for name in ("Makefile", "CMakeLists.txt", "toolchain.cmake"):
        files[name] = (root / name).read_text("utf-8").replace("@TARGET@", built)
    folders = ["targets", "boards"]
    if target == "esp32s3":
        folders += ["esp32s3", "esp32s3/main", "esp32s3/arduino"]
    for folder in folders:
        for file in (root / folder).iterdir():
            if file.is_file():
                files[f"{folder}/{file.name}"] = file.read_text("utf-8")
    return files


def _library() -> dict[str, str]:
    root = resources.files("rillet.native")
    files = {"lib/flags.txt": (root / "flags.txt").read_text("utf-8")}
    files["lib/include/rillet.h"] = (root / "include" / "rillet.h").read_text("utf-8")
    for folder in ("src", "src/kernels"):
        for file in (root / folder).iterdir():
            stem, _, suffix = file.name.rpartition(".")
            if suffix == "h" or (suffix == "c" and stem in LIBRARY_SOURCES):
                files[f"lib/{folder}/{file.name}"] = file.read_text("utf-8")
    return files

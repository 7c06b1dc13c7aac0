"""Build the source distribution, and from it the wheel, the same bytes each time.

    python scripts/build_dist.py --out dist

What is committed is built, in a folder of its own: nothing that lies around gets in. The bytes
depend on the sources, on the time given by SOURCE_DATE_EPOCH (the commit's when it is not
set), and on the version of setuptools, which constraints.txt pins; not on when, where or by whom it
is built. setuptools must be installed; nothing is fetched.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

SDIST = "import sys; from setuptools import build_meta; print(build_meta.build_sdist(sys.argv[1]))"


def main() -> int:
    """Build both, and print their hashes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="default: dist")
    parser.add_argument(
        "--source", type=Path, help="build this folder, as it stands, instead of what is committed"
    )
    options = parser.parse_args()
    os.umask(0o022)  # files in a wheel carry their modes
    if "SOURCE_DATE_EPOCH" not in os.environ:
        if options.source is not None:
            parser.error("a folder has no time of its own: set SOURCE_DATE_EPOCH, in seconds")
        os.environ["SOURCE_DATE_EPOCH"] = _git("log", "-1", "--format=%ct")
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "source"
        if options.source is None:
            _export(Path(scratch) / "source.tar", source)
        else:
            shutil.copytree(options.source, source)
        for made in _build(source, Path(scratch) / "dist"):
            options.out.mkdir(parents=True, exist_ok=True)
            target = options.out / made.name
            shutil.copyfile(made, target)
            print(hashlib.sha256(target.read_bytes()).hexdigest(), target)
    return 0


def _export(archive: Path, folder: Path) -> None:
    """Unpack what is committed."""
    _git("archive", "--output", str(archive), "HEAD")
    _unpack(archive, folder)


def _build(source: Path, out: Path) -> tuple[Path, Path]:
    """The source distribution of a folder, and the wheel of that."""
    out.mkdir()
    subprocess.run(
        [sys.executable, "-c", SDIST, str(out)], cwd=source, stdout=sys.stderr, check=True
    )
    (sdist,) = out.glob("rillet-*.tar.gz")
    _settle(sdist, int(os.environ["SOURCE_DATE_EPOCH"]))
    unpacked = out / "unpacked"
    _unpack(sdist, unpacked)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet"]
    subprocess.run(
        [*pip, "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(out),
         str(unpacked / sdist.name.removesuffix(".tar.gz"))], check=True,
    )  # fmt: skip
    (wheel,) = out.glob("rillet-*.whl")
    return sdist, wheel


def _settle(archive: Path, epoch: int) -> None:
    """Write an archive anew without what tells when and by whom it was made."""
    with tarfile.open(archive) as old:
        members = sorted(old.getmembers(), key=lambda member: member.name)
        contents = {member.name: old.extractfile(member) for member in members if member.isfile()}
        with (
            archive.with_suffix(".new").open("wb") as file,
            gzip.GzipFile("", "wb", fileobj=file, mtime=epoch) as packed,
            tarfile.open(fileobj=packed, mode="w") as new,
        ):
            for member in members:
                member.mtime, member.uid, member.gid = epoch, 0, 0
                member.uname = member.gname = ""
                member.pax_headers = {}
                new.addfile(member, contents.get(member.name))
    archive.with_suffix(".new").replace(archive)


def _unpack(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as opened:
        if hasattr(tarfile, "data_filter"):
            opened.extractall(folder, filter="data")
        else:  # an older patch release of Python 3.10 or 3.11
            opened.extractall(folder)  # noqa: S202 - git and setuptools wrote it just now


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    ).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())

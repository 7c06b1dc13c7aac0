"""Build the source distribution and the wheel reproducibly.

    python scripts/build_dist.py --out dist

The script builds the committed files in a folder of its own, so that stray files stay out, and
builds the wheel from the source distribution. The bytes depend on the sources, on SOURCE_DATE_EPOCH
(by default the time of the commit), and on the version of setuptools, which constraints.txt pins;
they do not depend on when, where or by whom they are built. setuptools must be installed; nothing
is downloaded.
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

_BUILD_SDIST = (
    "import sys; from setuptools import build_meta; print(build_meta.build_sdist(sys.argv[1]))"
)


def main() -> int:
    """Build both distributions, and print their hashes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="default: dist")
    parser.add_argument(
        "--source", type=Path, help="build this folder as it is, instead of the committed files"
    )
    options = parser.parse_args()
    os.umask(0o022)  # a wheel records file modes
    if "SOURCE_DATE_EPOCH" not in os.environ:
        if options.source is not None:
            parser.error("--source needs SOURCE_DATE_EPOCH; set it to a time in seconds")
        os.environ["SOURCE_DATE_EPOCH"] = _git("log", "-1", "--format=%ct")
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "source"
        if options.source is None:
            _export(Path(scratch) / "source.tar", source)
        else:
            shutil.copytree(options.source, source)
        for built in _build(source, Path(scratch) / "dist"):
            options.out.mkdir(parents=True, exist_ok=True)
            target = options.out / built.name
            shutil.copyfile(built, target)
            print(hashlib.sha256(target.read_bytes()).hexdigest(), target)
    return 0


def _export(archive: Path, folder: Path) -> None:
    """Unpack the committed files into a folder."""
    _git("archive", "--output", str(archive), "HEAD")
    _unpack(archive, folder)


def _build(source: Path, out: Path) -> tuple[Path, Path]:
    """Build the source distribution of a folder, and the wheel of that."""
    out.mkdir()
    subprocess.run(
        [sys.executable, "-c", _BUILD_SDIST, str(out)], cwd=source, stdout=sys.stderr, check=True
    )
    (sdist,) = out.glob("rillet-*.tar.gz")
    _normalise(sdist, int(os.environ["SOURCE_DATE_EPOCH"]))
    unpacked = out / "unpacked"
    _unpack(sdist, unpacked)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet"]
    offline = ["--no-deps", "--no-build-isolation", "--no-index"]
    folder = unpacked / sdist.name.removesuffix(".tar.gz")
    subprocess.run([*pip, *offline, "--wheel-dir", str(out), str(folder)], check=True)
    (wheel,) = out.glob("rillet-*.whl")
    return sdist, wheel


def _normalise(archive: Path, epoch: int) -> None:
    """Rewrite an archive without build times and owners."""
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
        else:  # early patch releases of Python 3.10 and 3.11
            opened.extractall(folder)  # noqa: S202 - the archive is our own


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    ).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())

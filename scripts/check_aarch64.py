"""Run the wheel on aarch64 under emulation: verify a bundle, and generate from it.

Nothing is installed. An arm64 Python is unpacked from the system's own package archive, the
wheels for aarch64 come from the package index, and qemu's user emulation runs them, as a device
without a GPU would. About 150 MB of downloads into ``build/aarch64``, kept for the next time;
one to three minutes.

    python scripts/check_aarch64.py models/shakespeare-nano

It needs a Debian or Ubuntu with apt and, unless qemu-aarch64-static is installed, its archive.
The Python is the archive's: 3.10 on Ubuntu 22.04, as on JetPack 6; 3.11 on Debian 12.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "aarch64"
PACKAGES = ("numpy==2.2.6", "onnxruntime==1.23.2", "tokenizers", "safetensors", "click")
"""The newest that Python 3.10, JetPack 6's, has wheels for."""

PYTHONS = ("3.10", "3.11", "3.12")
UNAVAILABLE = 3
"""Exit code where there is no way to emulate here."""

PROGRAM = """
import platform, sys
import numpy, onnxruntime
import rillet.runtime
from rillet.runtime.golden import verify_golden
model = rillet.runtime.load(sys.argv[1], "cpu")
print("python", platform.python_version(), platform.machine(), "onnxruntime",
      onnxruntime.__version__, "numpy", numpy.__version__, "rillet", rillet.runtime.__version__)
for graph, report in verify_golden(model).items():
    print(f"{graph}: {report.greedy} greedy tokens equal, logits within {report.logits:.1e}")
print("text:", repr(model.generate("The ", max_new_tokens=60, temperature=0.0)))
"""


class UnavailableError(Exception):
    """There is no way to emulate here; says why."""


def main() -> int:
    """Set up what is missing, and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path, nargs="?", default=ROOT / "models/shakespeare-nano")
    bundle = parser.parse_args().bundle.resolve()
    WORK.mkdir(parents=True, exist_ok=True)
    try:
        qemu = _qemu()
        root, version = _arm64_python()
        site = _site(version)
    except UnavailableError as error:
        print(f"cannot emulate aarch64 here: {error}", file=sys.stderr)
        return UNAVAILABLE
    command = [
        str(qemu), "-L", str(root), "-E", f"PYTHONPATH={site}", "-E", "PYTHONDONTWRITEBYTECODE=1",
        "-E", f"PYTHONHOME={root / 'usr'}", str(root / "usr" / "bin" / f"python{version}"),
        "-c", PROGRAM, str(bundle),
    ]  # fmt: skip
    return subprocess.run(command, check=False).returncode


def _qemu() -> Path:
    """Qemu's user emulation: the system's, or unpacked from its archive."""
    found = shutil.which("qemu-aarch64-static")
    if found:
        return Path(found)
    unpacked = WORK / "qemu" / "usr" / "bin" / "qemu-aarch64-static"
    if not unpacked.is_file():
        native = _output("dpkg", "--print-architecture")
        _unpack("qemu-user-static", native, WORK / "qemu", dependencies=False)
    if not unpacked.is_file():
        raise UnavailableError("qemu-user-static has no qemu-aarch64-static; install it")
    return unpacked


def _arm64_python() -> tuple[Path, str]:
    """A root folder with an arm64 Python and its libraries, and the Python's version."""
    for version in PYTHONS:
        root = WORK / f"root-{version}"
        if (root / "usr" / "bin" / f"python{version}").is_file():
            return root, version
    failures = []
    for version in PYTHONS:
        root = WORK / f"root-{version}"
        try:
            _unpack(f"python{version}", "arm64", root, extra=("libstdc++6",))
        except UnavailableError as error:
            failures.append(str(error))
            continue
        return root, version
    raise UnavailableError("; ".join(failures))


def _unpack(
    package: str,
    architecture: str,
    target: Path,
    dependencies: bool = True,
    extra: tuple[str, ...] = (),
) -> None:
    """Download a Debian package, with what it needs, and unpack it; apt's own state is not used."""
    if not all(shutil.which(tool) for tool in ("apt-get", "apt-cache", "dpkg-deb")):
        raise UnavailableError("there is no apt-get and dpkg-deb, as Debian and Ubuntu have")
    state = WORK / f"apt-{architecture}"
    for folder in ("lists/partial", "cache/archives/partial"):
        (state / folder).mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    settings = {
        "Dir::State::lists": state / "lists",
        "Dir::State::status": state / "status",
        "Dir::Cache": state / "cache",
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "",
        "Debug::NoLocking": "true",
    }
    options = [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]
    if not any(state.glob("lists/*Packages*")):
        _run("apt-get", *options, "--quiet=2", "update")
    # apt-get would take a name that it does not know for a pattern, and install something else.
    known = _output("apt-cache", *options, "show", package)
    if f"Package: {package}" not in known.splitlines():
        raise UnavailableError(f"the package archive has no {package}")
    archives = state / "cache" / "archives"
    for old in archives.glob("*.deb"):
        old.unlink()
    if dependencies:
        names = (package, *extra)
        _run("apt-get", *options, "--quiet=2", "--yes", "--download-only", "install", *names)
    else:
        _run("apt-get", *options, "--quiet=2", "download", package, folder=archives)
    scratch = target.with_name(target.name + ".tmp")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    for archive in sorted(archives.glob("*.deb")):
        _run("dpkg-deb", "-x", str(archive), str(scratch))
    os.rename(scratch, target)


def _site(version: str) -> Path:
    """A folder with the wheels for aarch64, and this project's wheel, made anew each time."""
    site = WORK / f"site-{version}"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    if not site.is_dir():
        scratch = site.with_name(site.name + ".tmp")
        shutil.rmtree(scratch, ignore_errors=True)
        platforms = [f"manylinux{name}_aarch64" for name in ("_2_28", "_2_27", "_2_17", "2014")]
        _run(
            *pip, "install", "--target", str(scratch), "--only-binary=:all:", "--implementation",
            "cp", "--python-version", version,
            *[part for name in platforms for part in ("--platform", name)], *PACKAGES,
        )  # fmt: skip
        os.rename(scratch, site)
    wheels = WORK / "wheel"
    shutil.rmtree(wheels, ignore_errors=True)
    _run(*pip, "wheel", "--no-deps", "--wheel-dir", str(wheels), str(ROOT))
    (wheel,) = wheels.glob("rillet-*.whl")
    for old in site.glob("rillet*"):
        shutil.rmtree(old)
    _run(*pip, "install", "--target", str(site), "--no-deps", "--upgrade", str(wheel))
    return site


def _run(*command: str, folder: Path | None = None) -> None:
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode:
        said = (result.stderr or result.stdout).strip().splitlines()
        raise UnavailableError(
            f"{' '.join(command[:3])} ... failed: {said[-1] if said else 'silently'}"
        )


def _output(*command: str) -> str:
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise UnavailableError(str(error)) from error
    return result.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())

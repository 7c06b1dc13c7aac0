"""Run the wheel on emulated aarch64: verify a bundle, and generate text from it.

The script installs nothing. It unpacks an arm64 Python from the system's package archive, downloads
aarch64 wheels from the package index, and runs both under qemu's user emulation, as a device
without a GPU would. It takes one to three minutes and keeps about 150 MB of downloads in
``build/aarch64``.

    python scripts/check_aarch64.py models/shakespeare-nano

It needs Debian or Ubuntu with apt. The archive determines the version of Python: 3.10 on Ubuntu
22.04, as on JetPack 6, and 3.11 on Debian 12.
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
"""The newest versions with wheels for Python 3.10, which JetPack 6 has."""

PYTHONS = ("3.10", "3.11", "3.12")
UNAVAILABLE = 3
"""Exit code when this machine cannot emulate aarch64."""

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
    """This machine cannot emulate aarch64; the message says why."""


def main() -> int:
    """Prepare the emulation, and run the program."""
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
    environment = {
        "PYTHONPATH": site,
        "PYTHONDONTWRITEBYTECODE": 1,
        "PYTHONHOME": root / "usr",
    }
    settings = [part for name, value in environment.items() for part in ("-E", f"{name}={value}")]
    python = str(root / "usr" / "bin" / f"python{version}")
    command = [str(qemu), "-L", str(root), *settings, python, "-c", PROGRAM, str(bundle)]
    return subprocess.run(command, check=False).returncode


def _qemu() -> Path:
    """Find qemu's user emulation, or unpack it from the system's archive."""
    installed = shutil.which("qemu-aarch64-static")
    if installed:
        return Path(installed)
    unpacked = WORK / "qemu" / "usr" / "bin" / "qemu-aarch64-static"
    if not unpacked.is_file():
        native = _output("dpkg", "--print-architecture")
        _unpack("qemu-user-static", native, WORK / "qemu", dependencies=False)
    if not unpacked.is_file():
        raise UnavailableError(
            "the package qemu-user-static lacks qemu-aarch64-static; install qemu-aarch64-static"
        )
    return unpacked


def _arm64_python() -> tuple[Path, str]:
    """Find or unpack an arm64 Python; returns its root folder and version."""
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
    """Download a Debian package and its dependencies, and unpack them without installing."""
    if not all(shutil.which(tool) for tool in ("apt-get", "apt-cache", "dpkg-deb")):
        raise UnavailableError("apt-get, apt-cache and dpkg-deb are missing; use Debian or Ubuntu")
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
    # apt-get treats an unknown name as a pattern, and would fetch another package.
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
    """Prepare a folder with the aarch64 wheels and a fresh wheel of this project."""
    site = WORK / f"site-{version}"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    if not site.is_dir():
        scratch = site.with_name(site.name + ".tmp")
        shutil.rmtree(scratch, ignore_errors=True)
        platforms = [f"manylinux{name}_aarch64" for name in ("_2_28", "_2_27", "_2_17", "2014")]
        target = ["--implementation", "cp", "--python-version", version]
        target += [part for name in platforms for part in ("--platform", name)]
        install = (*pip, "install", "--only-binary=:all:", "--target", str(scratch))
        _run(*install, *target, *PACKAGES)
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
        lines = (result.stderr or result.stdout).strip().splitlines()
        reason = lines[-1] if lines else "no output"
        raise UnavailableError(f"{' '.join(command[:3])} ... failed: {reason}")


def _output(*command: str) -> str:
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise UnavailableError(str(error)) from error
    return result.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())

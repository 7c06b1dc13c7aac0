"""The contents of a release: wheel, source distribution, extras, container, pins."""

from __future__ import annotations

import email
import email.message
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import rillet.runtime
from rillet.runtime.engines.native.library import library_path
from support.wheels import build, copy_source

ROOT = Path(__file__).parents[2]
DEVICE = {"click", "numpy", "safetensors", "tokenizers"}
"""What a device needs besides an engine. A fifth package fails the tests."""

PACKAGES = ("runtime", "train", "export", "integrations")
ENGINES = {"cpu": "onnxruntime", "gpu": "onnxruntime-gpu"}
"""Extras whose packages share a folder, so that only one may be installed."""

from check_pins import installed, project_requirements, read_pins  # noqa: E402


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The source distribution and the wheel."""
    folder = tmp_path_factory.mktemp("release")
    return build(copy_source(folder / "source"), folder / "dist")


@pytest.fixture(scope="module")
def metadata(made: tuple[Path, Path]) -> email.message.Message:
    """The wheel's metadata."""
    with zipfile.ZipFile(made[1]) as wheel:
        (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
        return email.message_from_bytes(wheel.read(name))


def modules() -> set[str]:
    return {
        str(file.relative_to(ROOT))
        for package in PACKAGES
        for file in (ROOT / package).rglob("*")
        if file.suffix == ".py" or file.name == "py.typed" or file.parent.name == "page"
    }


def firmware_sources() -> set[str]:
    """What `rillet firmware` copies, and the package that holds it."""
    root = ROOT / "native"
    files = {root / "__init__.py", root / "flags.txt", *root.glob("include/*.h")}
    files |= {*root.glob("src/*.[ch]"), *root.glob("src/kernels/*.h")}
    files |= {file for file in (root / "firmware").rglob("*") if file.is_file()}
    return {str(file.relative_to(ROOT)) for file in files}


@pytest.mark.slow
def test_builds_are_reproducible(made: tuple[Path, Path], tmp_path: Path) -> None:
    """Another folder, time and environment give the same bytes."""
    source = copy_source(tmp_path / "another folder, with other times")
    for file in source.rglob("*"):
        os.utime(file, (1_234_567_890, 1_234_567_890))
    habits = {"TZ": "Pacific/Auckland", "PYTHONHASHSEED": "7", "LC_ALL": "C"}
    again = build(source, tmp_path / "dist", umask=0o077, env=habits)
    for first, second in zip(made, again, strict=True):
        assert first.name == second.name
        assert first.read_bytes() == second.read_bytes()
    # The timestamps inside are the given ones, not those of the files.
    other = build(source, tmp_path / "other", epoch=1_700_000_000)
    for first, second in zip(made, other, strict=True):
        assert first.read_bytes() != second.read_bytes()


def test_the_wheel_has_the_packages_and_nothing_else(made: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(made[1]) as wheel:
        names = set(wheel.namelist())
    files = {name for name in names if ".dist-info/" not in name}
    library = {name for name in files if "/librillet.native." in name}
    assert files - library == {f"rillet/{name}" for name in modules() | firmware_sources()}
    # One wheel for every Python of the platform; for all, where no compiler built the library.
    assert len(library) == (library_path() is not None)
    assert ("-py3-none-any" in made[1].name) == (not library)
    assert "-py3-none-" in made[1].name
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.skipif(
    library_path() is None or platform.libc_ver()[0] != "glibc", reason="no library for glibc"
)
def test_the_tag_says_what_the_library_needs(made: tuple[Path, Path]) -> None:
    """A package index takes a wheel for Linux only if it names the oldest glibc that will do."""
    tag = re.search(r"-py3-none-manylinux_2_(\d+)_(\w+)\.whl$", made[1].name)
    assert tag is not None
    assert tag[2] == platform.machine()
    assert 17 <= int(tag[1]) <= int(platform.libc_ver()[1].split(".")[1])
    with zipfile.ZipFile(made[1]) as wheel:
        (name,) = [name for name in wheel.namelist() if "/librillet.native." in name]
        library = wheel.read(name)
    versions = [int(minor) for minor in re.findall(rb"GLIBC_2\.(\d+)", library)]
    assert max(17, *versions) == int(tag[1])
    # No path of the machine that built it, such as where its Python's libraries lie.
    assert sys.base_prefix.encode() not in library


@pytest.mark.slow
def test_a_compiler_for_another_processor_makes_its_wheel(tmp_path: Path) -> None:
    compiler = "aarch64-linux-gnu-gcc"
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed: apt-get install gcc-aarch64-linux-gnu")
    source = copy_source(tmp_path / "source")
    _, wheel = build(source, tmp_path / "dist", env={"CC": compiler})
    assert re.search(r"-py3-none-manylinux_2_\d+_aarch64\.whl$", wheel.name)


@pytest.mark.slow
def test_without_a_compiler_the_wheel_serves_every_platform(tmp_path: Path) -> None:
    source = copy_source(tmp_path / "source")
    _, wheel = build(source, tmp_path / "dist", env={"CC": "false"})
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as opened:
        files = {name for name in opened.namelist() if ".dist-info/" not in name}
    assert files == {f"rillet/{name}" for name in modules() | firmware_sources()}


def test_the_source_distribution_is_complete(made: tuple[Path, Path]) -> None:
    """The wheel is built from it alone; it also holds the documents of the project."""
    with tarfile.open(made[0]) as sdist:
        names = {
            name.partition("/")[2] for name in sdist.getnames() if sdist.getmember(name).isfile()
        }
    assert modules() <= names
    library = (file for file in (ROOT / "native").rglob("*") if file.is_file())
    assert {str(file.relative_to(ROOT)) for file in library if file.name[0] != "."} <= names
    assert {
        "LICENSE",
        "README.md",
        "CHANGELOG.md",
        "SECURITY.md",
        "pyproject.toml",
        "setup.py",
        "constraints.txt",
        "PKG-INFO",
    } <= names
    # Tests and the models that they need are in the repository only.
    assert not {name for name in names if name.startswith(("tests/", "models/", "."))}


def test_the_package_list_has_every_folder() -> None:
    """A folder that the list lacks works from a checkout and is missing from the wheel."""
    folders = {
        ".".join(("rillet", *file.relative_to(ROOT).parts[:-1]))
        for package in (*PACKAGES, "native")
        for file in (ROOT / package).rglob("*.py")
    }
    packages = pyproject()["tool"]["setuptools"]["packages"]
    assert set(packages) == folders
    assert len(packages) == len(folders)


def test_every_folder_is_a_package() -> None:
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            assert (file.parent / "__init__.py").exists(), f"{file.parent} lacks __init__.py"


def test_the_citation_agrees() -> None:
    project = project_metadata()
    citation = (ROOT / "CITATION.cff").read_text()
    for line in (
        f"title: {project['name']}",
        f"version: {project['version']}",
        f"license: {project['license']}",
        f"repository-code: {project['urls']['Source']}",
        *(f"  - {keyword}" for keyword in project["keywords"]),
    ):
        assert f"\n{line}\n" in citation, f"CITATION.cff lacks {line!r}"


def test_links_lead_to_one_repository(metadata: email.message.Message) -> None:
    urls = project_metadata()["urls"]
    assert all(url.startswith(urls["Source"]) for url in urls.values())
    assert len(metadata.get_all("Project-URL") or ()) == len(urls)
    for file in (
        ROOT / "CONTRIBUTING.md",
        ROOT / "docs" / "contributing.md",
        *(ROOT / ".github").rglob("*.*"),
    ):
        for owner in re.findall(r"github\.com/([\w-]+/rillet)\b", file.read_text()):
            assert urls["Source"].endswith(owner), file


def test_versions_agree(metadata: email.message.Message) -> None:
    assert metadata["Version"] == rillet.runtime.__version__
    result = subprocess.run(
        [sys.executable, "-m", "rillet.runtime", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == f"rillet, version {metadata['Version']}\n"


def test_python_m_is_the_command() -> None:
    arguments = ["generate", str(ROOT / "models" / "shakespeare-nano"), "ROMEO:"]
    arguments += ["--max-new-tokens", "20", "--seed", "3"]
    answers = [
        subprocess.run(
            [sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=True
        ).stdout
        for module in ("rillet.runtime", "rillet.runtime.cli")
    ]
    assert answers[0] == answers[1]
    assert answers[0].startswith("ROMEO:")
    wrong = subprocess.run(
        [sys.executable, "-m", "rillet.runtime", "generate", "--seed", "x"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("Usage: rillet generate")


# The extras.


def requirements(metadata: email.message.Message, extra: str | None) -> set[str]:
    """Names of the wheel's requirements, for an extra or without any."""
    found = set()
    for requirement in map(Requirement, metadata.get_all("Requires-Dist") or ()):
        asked = re.search(r"extra == ['\"](\w+)['\"]", str(requirement.marker or ""))
        if extra == (asked and asked[1]):
            found.add(requirement.name)
    return found


def test_the_device_install_asks_for_no_more(metadata: email.message.Message) -> None:
    assert requirements(metadata, None) == DEVICE
    for extra, engine in ENGINES.items():
        assert requirements(metadata, extra) == {engine}


def extras() -> list[str]:
    message = project_metadata()
    return sorted(message["optional-dependencies"])


def pyproject() -> dict[str, Any]:
    from check_pins import tomllib

    content: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return content


def project_metadata() -> dict[str, Any]:
    project: dict[str, Any] = pyproject()["project"]
    return project


@pytest.mark.parametrize("extra", extras())
def test_no_extra_brings_two_engines(extra: str) -> None:
    """Neither directly, nor through another extra or a dependency."""
    asked = project_requirements(ROOT / "pyproject.toml", [extra])
    names = {canonicalize_name(requirement.name) for requirement in asked} | set(installed(asked))
    brought = names & set(ENGINES.values())
    if extra == "gpu":
        assert brought == {ENGINES["gpu"]}
    else:
        assert ENGINES["gpu"] not in brought  # so that it may be combined with `gpu`


def test_extras_name_extras_that_exist() -> None:
    known = set(extras())
    for entries in project_metadata()["optional-dependencies"].values():
        for requirement in map(Requirement, entries):
            if requirement.name == "rillet":
                assert requirement.extras <= known


# The pins.


def test_everything_installed_is_pinned() -> None:
    result = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "check_pins.py")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_missing_or_wrong_pin_is_found(tmp_path: Path) -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    corrupted = tmp_path / "constraints.txt"
    kept = [line for line in lines if not line.startswith(("click==", "huggingface-hub=="))]
    corrupted.write_text("\n".join([*kept, "click==0.1"]))
    result = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "check_pins.py"), "--constraints", str(corrupted)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    first, second = result.stdout.splitlines()
    assert re.fullmatch(r"click \S+ is installed, but constraints.txt has click==0.1", first)
    assert re.fullmatch(r"huggingface-hub \S+ is installed, .* no pin for it", second)


def test_pins_are_exact_and_in_order() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line[0] != "#"]
    assert lines == sorted(lines, key=lambda line: (line.partition("==")[0], line))
    for line in lines:
        pin = Requirement(line)
        assert [specifier.operator for specifier in pin.specifier] == ["=="]
        assert pin.name == canonicalize_name(pin.name)
    assert len(read_pins(lines)) <= len(lines)


# The container. Building it would need a container engine.


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in lines]


def test_the_container_builds_from_what_exists() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for name, rest in instructions():
        if name == "COPY":
            *sources, _ = shlex.split(rest)
            for source in sources:
                assert (ROOT / source).exists(), source
                assert f"!{source.rstrip('/')}" in ignored  # it is part of the build context
        elif name == "FROM":
            version = re.fullmatch(r"python:(3\.\d+)-slim( AS build)?", rest)
            assert version is not None
            classifiers = project_metadata()["classifiers"]
            assert f"Programming Language :: Python :: {version[1]}" in classifiers
    runs = " ".join(rest for name, rest in instructions() if name == "RUN")
    assert set(re.findall(r"rillet\[(\w+)\]", runs)) == {"cpu"}
    assert "--constraint constraints.txt" in runs
    assert {rest for name, rest in instructions() if name == "ADD"} == set()
    # Everything that setuptools needs for the wheel is copied.
    copied = " ".join(rest for name, rest in instructions() if name == "COPY")
    for needed in ("pyproject.toml", "setup.py", "native/", "README.md", "LICENSE", *PACKAGES):
        assert needed in copied


def test_the_container_runs_the_command_as_nobody_special() -> None:
    names = [name for name, _ in instructions()]
    last = dict(instructions()[len(names) - 1 - names[::-1].index("FROM") :])  # of the last stage
    assert last["ENTRYPOINT"] == '["rillet"]'
    assert "rillet" in project_metadata()["scripts"]
    assert last["USER"] not in ("root", "0")
    assert f"useradd --create-home --uid 1000 {last['USER']}" in last["RUN"]
    assert "--no-index" in last["RUN"]  # only what the first stage has gathered
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert "EXPOSE" not in names

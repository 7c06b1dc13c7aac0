"""Check that constraints.txt pins every package that CI uses, at the installed version.

    python scripts/check_pins.py            # reports each mismatch, and exits with 1
    python scripts/check_pins.py --list     # prints missing and outdated pins, to paste

The script checks the requirements in pyproject.toml, with the extras that CI installs, and their
dependencies. It ignores other packages in the environment.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = ("cpu", "train", "export", "dev")
"""The extras that the Makefile installs."""


def main() -> int:
    """Compare the installed packages with the pins, and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--constraints", type=Path, default=ROOT / "constraints.txt")
    parser.add_argument("--list", action="store_true", help="print the missing and outdated lines")
    options = parser.parse_args()
    pins = read_pins(options.constraints.read_text().splitlines())
    used = installed(project_requirements(ROOT / "pyproject.toml", EXTRAS))
    mismatches = 0
    for name, version in sorted(used.items()):
        pin = pins.get(name)
        if pin is not None and pin.specifier.contains(version, prereleases=True):
            continue
        mismatches += 1
        if options.list:
            print(f"{name}=={version.partition('+')[0]}")
        else:
            print(
                f"{name} {version} is installed, but constraints.txt has {pin or 'no pin for it'}"
            )
    if not mismatches and not options.list:
        print(f"{len(used)} packages match their pins")
    return bool(mismatches)


def read_pins(lines: Iterable[str]) -> dict[str, Requirement]:
    """The pins that apply to this Python and system, by package name."""
    pins: dict[str, Requirement] = {}
    for line in lines:
        text = line.partition("#")[0].strip()
        if text and _applies(pin := Requirement(text), ()):
            pins[canonicalize_name(pin.name)] = pin
    return pins


def project_requirements(pyproject: Path, extras: Iterable[str]) -> list[Requirement]:
    """The project's requirements with some extras, and the extras that those include."""
    project: dict[str, Any] = tomllib.loads(pyproject.read_text())["project"]
    optional: dict[str, list[str]] = project["optional-dependencies"]
    requirements = [Requirement(text) for text in project["dependencies"]]
    pending, seen = list(extras), set[str]()
    while pending:
        extra = pending.pop()
        if extra in seen:
            continue
        seen.add(extra)
        for requirement in map(Requirement, optional[extra]):
            if requirement.name == project["name"]:
                pending.extend(requirement.extras)
            else:
                requirements.append(requirement)
    return requirements


def installed(requirements: Iterable[Requirement]) -> dict[str, str]:
    """Installed versions of the requirements and their dependencies, by package name."""
    versions: dict[str, str] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    pending = [requirement for requirement in requirements if _applies(requirement, ())]
    while pending:
        requirement = pending.pop()
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        try:
            distribution = importlib.metadata.distribution(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            continue  # for another machine, or not available
        versions[key[0]] = distribution.version
        pending.extend(_dependencies(distribution, requirement.extras))
    return versions


def _dependencies(
    distribution: importlib.metadata.Distribution, extras: Iterable[str]
) -> Iterator[Requirement]:
    for requirement in map(Requirement, distribution.requires or ()):
        if _applies(requirement, extras):
            yield requirement


def _applies(requirement: Requirement, extras: Iterable[str]) -> bool:
    """Whether a requirement applies on this machine, for some extras of the dependent package."""
    if requirement.marker is None:
        return True
    return any(requirement.marker.evaluate({"extra": extra}) for extra in ("", *extras))


if __name__ == "__main__":
    sys.exit(main())

"""Hold what is installed against constraints.txt: all that CI uses has a pin, and keeps to it.

    python scripts/check_pins.py            # says what is wrong, and leaves with 1
    python scripts/check_pins.py --list     # the pins that are missing or out of date, to paste

Looked at are the packages that pyproject.toml asks for, with the extras that CI installs, and what
they ask for in turn: whatever else is in the environment is its owner's.
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
"""What the Makefile installs."""


def main() -> int:
    """Compare, and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--constraints", type=Path, default=ROOT / "constraints.txt")
    parser.add_argument("--list", action="store_true", help="print the lines that are missing")
    options = parser.parse_args()
    pins = read_pins(options.constraints.read_text().splitlines())
    used = installed(project_requirements(ROOT / "pyproject.toml", EXTRAS))
    wrong = 0
    for name, version in sorted(used.items()):
        pin = pins.get(name)
        if pin is not None and pin.specifier.contains(version, prereleases=True):
            continue
        wrong += 1
        if options.list:
            print(f"{name}=={version.partition('+')[0]}")
        else:
            print(f"{name} {version} is installed, and constraints.txt has {pin or 'no pin of it'}")
    if not wrong and not options.list:
        print(f"{len(used)} packages, each as it is pinned")
    return bool(wrong)


def read_pins(lines: Iterable[str]) -> dict[str, Requirement]:
    """The pins that hold for this Python and system, by name."""
    pins: dict[str, Requirement] = {}
    for line in lines:
        text = line.partition("#")[0].strip()
        if text and _holds(pin := Requirement(text), ()):
            pins[canonicalize_name(pin.name)] = pin
    return pins


def project_requirements(pyproject: Path, extras: Iterable[str]) -> list[Requirement]:
    """What the project asks for with these extras, those that they name included."""
    project: dict[str, Any] = tomllib.loads(pyproject.read_text())["project"]
    optional: dict[str, list[str]] = project["optional-dependencies"]
    found, seen = [Requirement(text) for text in project["dependencies"]], set[str]()
    waiting = list(extras)
    while waiting:
        extra = waiting.pop()
        if extra in seen:
            continue
        seen.add(extra)
        for requirement in map(Requirement, optional[extra]):
            if requirement.name == project["name"]:
                waiting.extend(requirement.extras)
            else:
                found.append(requirement)
    return found


def installed(wanted: Iterable[Requirement]) -> dict[str, str]:
    """Versions of what is asked for, directly or in turn, and installed, by name."""
    found: dict[str, str] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [requirement for requirement in wanted if _holds(requirement, ())]
    while waiting:
        requirement = waiting.pop()
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        try:
            distribution = importlib.metadata.distribution(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            continue  # not for this machine, or not to be had here
        found[key[0]] = distribution.version
        waiting.extend(_asked_for(distribution, requirement.extras))
    return found


def _asked_for(
    distribution: importlib.metadata.Distribution, extras: Iterable[str]
) -> Iterator[Requirement]:
    for requirement in map(Requirement, distribution.requires or ()):
        if _holds(requirement, extras):
            yield requirement


def _holds(requirement: Requirement, extras: Iterable[str]) -> bool:
    """Whether a requirement is one on this machine, with these extras of who asks for it."""
    if requirement.marker is None:
        return True
    return any(requirement.marker.evaluate({"extra": extra}) for extra in ("", *extras))


if __name__ == "__main__":
    sys.exit(main())

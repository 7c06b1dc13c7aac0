"""``rillet doctor``: what this machine can run, and why not."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from ..doctor import diagnose
from .terminal import tell

__all__ = ["doctor_command"]


_EXPERIMENTAL = "; experimental: no test has run on a GPU yet"


@click.command("doctor")
@click.argument("bundle", required=False, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def doctor_command(bundle: Path | None, as_json: bool) -> None:
    """Say what this machine can run, and why not; with BUNDLE, try every provider on it.

    The exit code is 1 if there is a problem to solve.
    """
    report = diagnose(bundle)
    if as_json:
        tell(json.dumps(report, indent=2))
    else:
        tell("\n".join(_lines(report, bundle)))
    sys.exit(1 if report["problems"] else 0)


def _lines(report: dict[str, Any], bundle: Path | None) -> Iterator[str]:
    for name in ("rillet", "python", "executable", "machine", "system", "cores"):
        yield f"{name:<12}{report[name]}"
    for name in ("packages", "engines"):
        versions = ", ".join(f"{key} {version}" for key, version in report[name].items())
        yield f"{name:<12}{versions or 'none'}"
    for name, entry in report["providers"].items():
        if name == "tensorrt" and bundle is None:
            continue  # the line below says the same
        if entry["works"]:
            step = f", {entry['step_us']} us a step" if "step_us" in entry else ""
            note = _EXPERIMENTAL if entry["experimental"] else ""
            yield f"{name:<12}works ({entry['owner']}{step}){note}"
        else:
            yield f"{name:<12}no: {entry['reason']}"
    tensorrt = report["tensorrt"]
    if tensorrt["works"]:
        yield f"TensorRT    works ({tensorrt['library']} on {tensorrt['gpu']}){_EXPERIMENTAL}"
    else:
        installed = f" ({tensorrt['library']} is installed)" if tensorrt["library"] else ""
        yield f"TensorRT    no{installed}: {tensorrt['reason']}"
    for name in tensorrt.get("engines", []):
        yield f"{'':12}engine {name}; see rillet engine list {shlex.quote(str(bundle))}"
    for problem in report["problems"]:
        yield f"Problem: {problem}"
    if not report["problems"]:
        yield "No problems found."

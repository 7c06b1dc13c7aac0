"""``rillet doctor``: what this machine can run, and why not."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from ..doctor import diagnose

__all__ = ["doctor"]


@click.command()
@click.argument("bundle", required=False, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Write what was found as JSON.")
def doctor(bundle: Path | None, as_json: bool) -> None:
    """Say what this machine can run, and why not; with BUNDLE, try every provider on it.

    The exit code is 1 where something has to be put right.
    """
    found = diagnose(bundle)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        for name in ("rillet", "python", "executable", "machine", "system", "cores"):
            click.echo(f"{name:<12}{found[name]}")
        for name in ("packages", "engines"):
            listed = ", ".join(f"{key} {version}" for key, version in found[name].items())
            click.echo(f"{name:<12}{listed or 'none'}")
        for name, entry in found["providers"].items():
            if entry["works"]:
                step = f", {entry['step_us']} us a step" if "step_us" in entry else ""
                click.echo(f"{name:<12}works ({entry['owner']}{step})")
            else:
                click.echo(f"{name:<12}no: {entry['reason']}")
        tensorrt = found["tensorrt"]
        if tensorrt["works"]:
            click.echo(f"TensorRT    works ({tensorrt['library']} on {tensorrt['gpu']})")
        else:
            has = f" ({tensorrt['library']} is installed)" if tensorrt["library"] else ""
            click.echo(f"TensorRT    no{has}: {tensorrt['reason']}")
        for name in tensorrt.get("engines", []):
            click.echo(f"{'':12}engine {name}; see rillet engine list {bundle}")
        for problem in found["problems"]:
            click.echo(f"Problem: {problem}")
        if not found["problems"]:
            click.echo("No problems found.")
    sys.exit(1 if found["problems"] else 0)

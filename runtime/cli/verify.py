"""``rillet verify``: check a bundle's files, its record, and its parity with PyTorch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ..engines.base import PROVIDERS, Provider
from ..errors import UsageError
from ..golden import GoldenReport, verify_golden
from ..model import Model, load
from .entry import optional_part
from .options import parse_choices

__all__ = ["verify"]


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--checkpoint", type=click.Path(path_type=Path), metavar="RUN",
    help="Compare with this checkpoint's PyTorch model, every logit and every state tensor.",
)  # fmt: skip
@click.option(
    "--engine", default="cpu", show_default=True, metavar="NAMES",
    help=f"Execution providers to check, with commas between: {', '.join(PROVIDERS)}; or all "
    "that run here.",
)  # fmt: skip
@click.option(
    "--steps", type=click.IntRange(1), default=10_000, show_default=True, metavar="N",
    help="With --checkpoint: tokens of real text to compare on, for each graph.",
)  # fmt: skip
@click.option(
    "--long", "long_text", is_flag=True,
    help="With --checkpoint: also stream 100,000 tokens, and see whether the error grows.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def verify(
    bundle: Path,
    checkpoint: Path | None,
    engine: str,
    steps: int,
    long_text: bool,
    as_json: bool,
) -> None:
    """Check BUNDLE: its files, PyTorch's record in it, and parity with a checkpoint."""
    if long_text and checkpoint is None:
        raise UsageError("--long compares with PyTorch; give the checkpoint with --checkpoint RUN")
    found: dict[str, Any] = {"bundle": bundle.name, "record": {}}
    models = _models(bundle, engine)
    say = click.echo if not as_json else _silent
    for name, model in models.items():
        if not found["record"]:
            say(f"Files: {len(model.bundle.hashes())} hashes match.")
        reports = verify_golden(model)
        found["record"][name] = {graph: vars(report) for graph, report in reports.items()}
        for report in reports.values():
            say(_sentence(name, report))
    if checkpoint is not None:
        report = _compare(bundle, checkpoint, list(models), steps, long_text, as_json)
        found["parity"] = report.to_list()
        say(report.table())
        if as_json and not report.passed:
            found["failure"] = report.failure
            click.echo(json.dumps(found, indent=2))
        report.check()
    if as_json:
        click.echo(json.dumps(found, indent=2))
    say(f"{bundle} is sound on {', '.join(str(m.engine.provider) for m in models.values())}.")


def _silent(_: str) -> None:
    """Say nothing: a program reads the output."""


def _models(bundle: Path, engine: str) -> dict[Provider, Model]:
    """The bundle on each engine that was asked for."""
    if engine == "all":
        found = {}
        for name in PROVIDERS:
            try:
                model = load(bundle, name, self_test=False)
                _ = model.engine.provider
            except Exception as error:
                if name == "cpu":
                    raise
                click.echo(f"{name}: cannot run here ({error})", err=True)
            else:
                found[name] = model
        return found
    names = parse_choices("--engine", engine, PROVIDERS, "all")
    return {name: load(bundle, name, self_test=False) for name in names}


def _sentence(name: str, report: GoldenReport) -> str:
    worst = max(report.state, key=lambda tensor: report.state[tensor])
    return (
        f"Record, {report.graph} graph on {name}: {report.greedy} greedy tokens equal to "
        f"PyTorch's; logits within {report.logits:.1e} of its float64 (its own float32: "
        f"{report.pytorch:.1e}), state within {report.state[worst]:.1e} ({worst})."
    )


def _compare(
    bundle: Path, checkpoint: Path, engines: list[Provider], steps: int, long: bool, quiet: bool
) -> Any:
    """Parity with the PyTorch model; needs the exporter's part of the installation."""
    api = optional_part("rillet.export.api", "rillet verify --checkpoint", "export")
    total = api.verify_work(bundle, engines, steps, long)
    if quiet:
        return api.verify(bundle, checkpoint, engines=engines, steps=steps, long=long)
    with click.progressbar(length=total, label="parity") as bar:
        return api.verify(
            bundle, checkpoint, engines=engines, steps=steps, long=long, progress=bar.update
        )

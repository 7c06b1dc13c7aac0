"""``rillet verify``: check a bundle's files, its record, and its parity with PyTorch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ..bundle import Bundle
from ..engines.base import PROVIDERS, Provider
from ..engines.select import processor_engines
from ..errors import BundleError, UsageError
from ..golden import GoldenReport, verify_golden
from ..model import Model, load
from .entry import optional_part
from .options import parse_choices
from .progress import ProgressBar
from .terminal import tell

__all__ = ["verify_command"]


@click.command("verify")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Compare with this checkpoint's PyTorch model: every logit and every state tensor.",
)
@click.option(
    "--engine",
    default="auto",
    show_default=True,
    metavar="NAMES",
    help=f"Providers to check, separated by commas: {', '.join(PROVIDERS)}; auto, for those that "
    "run here on the processor; or all, for all that run here.",
)
@click.option(
    "--steps",
    type=click.IntRange(1),
    default=10_000,
    show_default=True,
    metavar="N",
    help="With --checkpoint: tokens of real text to compare, for each graph.",
)
@click.option(
    "--long",
    "long_text",
    is_flag=True,
    help="With --checkpoint: also stream 100,000 tokens, to see whether the error grows.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def verify_command(
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
    results: dict[str, Any] = {"bundle": bundle.name, "record": {}}
    models = _load_models(bundle, engine)
    say = _silent if as_json else tell
    for name, model in models.items():
        if not results["record"]:
            say(f"Files: {len(model.bundle.hashes())} hashes match.")
        reports = verify_golden(model)
        results["record"][name] = {graph: vars(report) for graph, report in reports.items()}
        for report in reports.values():
            say(_sentence(name, report))
    if checkpoint is not None:
        report = _compare(bundle, checkpoint, list(models), steps, long_text)
        results["parity"] = report.to_list()
        say(report.table())
        if as_json and not report.passed:
            results["failure"] = report.failure
            tell(json.dumps(results, indent=2))
        report.check()
    if as_json:
        tell(json.dumps(results, indent=2))
    say(f"{bundle} is sound on {', '.join(str(m.engine.provider) for m in models.values())}.")


def _silent(_: str) -> None:
    """Print nothing: a program reads the output."""


def _load_models(bundle: Path, engine: str) -> dict[Provider, Model]:
    """Load the bundle on each provider that the option names."""
    if engine not in ("auto", "all"):
        names = parse_choices("--engine", engine, PROVIDERS, "all")
        return {name: load(bundle, name, self_test=False) for name in names}
    tried = PROVIDERS if engine == "all" else processor_engines(Bundle.open(bundle))
    models: dict[Provider, Model] = {}
    for name in tried:
        try:
            models[name] = load(bundle, name, self_test=False)
        except BundleError:
            raise
        except Exception as error:  # onnxruntime's exceptions share no public base
            if name == tried[-1] and not models:
                raise
            tell(f"{name}: cannot run here ({error})", err=True)
    return models


def _sentence(name: str, report: GoldenReport) -> str:
    worst = max(report.state, key=lambda tensor: report.state[tensor])
    return (
        f"Record, {report.graph} graph on {name}: {report.greedy} greedy tokens equal to "
        f"PyTorch's; logits within {report.logits:.1e} of its float64 (its own float32: "
        f"{report.pytorch:.1e}), state within {report.state[worst]:.1e} ({worst})."
    )


def _compare(
    bundle: Path, checkpoint: Path, engines: Sequence[Provider], steps: int, long: bool
) -> Any:
    """Measure parity with the PyTorch model, which needs the exporter's extra."""
    api = optional_part("rillet.export.api", "rillet verify --checkpoint", "export")
    total = api.verify_work(bundle, engines, steps, long)
    with ProgressBar("parity", total) as bar:
        return api.verify(
            bundle, checkpoint, engines=engines, steps=steps, long=long, progress=bar.update
        )

"""``rillet export``: from a checkpoint to a bundle."""

from __future__ import annotations

from pathlib import Path

import click

from ..train.checkpoint import load_checkpoint
from ..train.progress import progress_bar
from .bundle_writer import write_bundle
from .parity import STEPS, gate_total, table

__all__ = ["export"]


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), metavar="BUNDLE",
    help="Folder to write; an older bundle there is replaced as a whole.",
)  # fmt: skip
@click.option(
    "--precision", type=click.Choice(["fp32"]), default="fp32", show_default=True,
    help="Precision of the graphs.",
)  # fmt: skip
@click.option(
    "--parity-steps", type=click.IntRange(1), default=STEPS, show_default=True, metavar="N",
    help="Tokens of real text that each graph must agree with PyTorch on.",
)  # fmt: skip
def export(run: Path, out: Path, precision: str, parity_steps: int) -> None:
    """Export the checkpoint in RUN to a bundle, if it passes the parity gate."""
    checkpoint = load_checkpoint(run)
    click.echo("Building the graphs ...")
    with progress_bar(gate_total(parity_steps), "token", "parity") as bar:
        comparisons = write_bundle(checkpoint, out, parity_steps, bar.update)
    click.echo(table(comparisons))
    size = sum(file.stat().st_size for file in out.iterdir())
    click.echo(f"Bundle: {out} ({size / 1e6:.1f} MB, {precision})")
    click.echo(f'Next: rillet generate {out} "Once"')

"""``rillet verify``: check a bundle's files, its record, and its parity with PyTorch."""

from __future__ import annotations

from pathlib import Path

import click

from .cli import optional_part
from .errors import ParityError
from .model import Model, load
from .verify import verify_golden

__all__ = ["verify"]


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--checkpoint", type=click.Path(path_type=Path), metavar="RUN",
    help="Compare with this checkpoint's PyTorch model, every logit and every state tensor.",
)  # fmt: skip
@click.option(
    "--engine", type=click.Choice(["cpu"]), default="cpu", show_default=True,
    help="The execution provider to check.",
)  # fmt: skip
@click.option(
    "--steps", type=click.IntRange(1), default=10_000, show_default=True, metavar="N",
    help="With --checkpoint: tokens of real text to compare on, for each graph.",
)  # fmt: skip
def verify(bundle: Path, checkpoint: Path | None, engine: str, steps: int) -> None:
    """Check BUNDLE: its files, PyTorch's record in it, and parity with a checkpoint."""
    model = load(bundle, engine)
    click.echo(f"Files: {len(model.bundle.hashes())} hashes match.")
    deltas = verify_golden(model)
    shown = ", ".join(f"{graph} {delta:.1e}" for graph, delta in deltas.items())
    click.echo(
        "Record: greedy tokens equal to PyTorch's; largest difference of a log-probability: "
        f"{shown}."
    )
    if checkpoint is not None:
        _compare(model, checkpoint, steps)
    click.echo(f"{bundle} is sound on {model.engine.provider}.")


def _compare(model: Model, checkpoint: Path, steps: int) -> None:
    """Parity with the PyTorch model; needs the exporter's part of the installation."""
    parity = optional_part("rillet.export.parity", "rillet verify --checkpoint", "export")
    metadata = optional_part("rillet.export.metadata", "rillet verify --checkpoint", "export")
    train = optional_part("rillet.train.checkpoint", "rillet verify --checkpoint", "export")
    loaded = train.load_checkpoint(checkpoint)
    if metadata.weights_sha256(loaded.model) != model.bundle.manifest.get("weights_sha256"):
        raise ParityError(
            f"{model.bundle.path} was exported from other weights than those in {checkpoint}; "
            "export the checkpoint again"
        )
    with click.progressbar(length=parity.gate_total(steps), label="parity") as bar:
        rows = parity.run_gate(
            loaded.model, loaded.tokenizer, model.engine, "fp32", steps, bar.update
        )
    click.echo(parity.table(rows))
    parity.check(rows)

"""``rillet quantize``: a bundle in lower precision."""

from __future__ import annotations

from pathlib import Path

import click

from ...runtime.bundle import Bundle
from ...runtime.cli.progress import ProgressBar
from ..quantization.conversions import METHODS, PRECISIONS
from ..quantization.held_out import TOKENS
from ..quantization.lower_precision import quantize, quantize_total

__all__ = ["quantize_command"]


@click.command("quantize")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--precision", required=True, type=click.Choice(list(PRECISIONS)),
    help="int4, and int8 but for the method static, run on onnxruntime only.",
)  # fmt: skip
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), metavar="BUNDLE2",
    help="Folder to write; an older bundle there is replaced as a whole.",
)  # fmt: skip
@click.option(
    "--text", type=click.Path(path_type=Path), metavar="FILE",
    help="Measure the loss on this text; of the corpus that the model was trained on, the "
    "held-out part is taken. Python's reference texts when absent.",
)  # fmt: skip
@click.option(
    "--max-loss-rise", type=click.FloatRange(0), metavar="X",
    help="Nats per token by which the loss may rise: "
    + ", ".join(f"{entry.max_loss_rise:g} for {name}" for name, entry in PRECISIONS.items())
    + " when absent.",
)  # fmt: skip
@click.option(
    "--method", type=click.Choice(METHODS),
    help="fp16: weight-only, multiply. int8: weight-only, dynamic, static (for TensorRT). "
    "int4: weight-only. The first when absent.",
)  # fmt: skip
@click.option(
    "--max-difference", type=click.FloatRange(0, min_open=True), metavar="X",
    help="fp16: how far a logit or a state value may be from fp32's (0.005 when absent). As many "
    "products are lowered as hold it.",
)  # fmt: skip
@click.option("--recurrence", is_flag=True, help="Lower the reservoir's recurrence as well.")
@click.option(
    "--tokens", type=click.IntRange(64), default=TOKENS, show_default=True, metavar="N",
    help="Tokens of the text to measure at most.",
)  # fmt: skip
@click.option("--all-tokens", is_flag=True, help="Measure on the whole text.")
def quantize_command(
    bundle: Path,
    precision: str,
    out: Path,
    text: Path | None,
    max_loss_rise: float | None,
    method: str | None,
    max_difference: float | None,
    recurrence: bool,
    tokens: int,
    all_tokens: bool,
) -> None:
    """Lower the precision of BUNDLE, if its loss does not rise by more than is allowed."""
    source = Bundle.open(bundle)
    # Of a whole text nobody knows the length yet; the bar then runs over what is usual.
    with ProgressBar("measuring", quantize_total(tokens)) as bar:
        made = quantize(
            source,
            out,
            precision,
            method=method,
            max_difference=max_difference,
            text=text,
            max_loss_rise=max_loss_rise,
            recurrence=recurrence,
            tokens=None if all_tokens else tokens,
            progress=bar.update,
        )
    found = made.manifest["quantization"]
    rise = found["loss"] - found["loss_fp32"]
    click.echo(
        f"Loss on {found['text']}, {found['tokens']:,} tokens: {found['loss']:.4f} nats per "
        f"token, {found['loss_fp32']:.4f} in fp32 ({rise:+.4f}; {found['max_loss_rise']:g} allowed)"
    )
    for label, folder in (("fp32", bundle), (precision, out)):
        size = sum(file.stat().st_size for file in folder.iterdir())
        click.echo(f"{label}: {size / 1e6:.2f} MB")
    if found["left_out"]:
        click.echo(f"Left out, being in fp32 only: {', '.join(found['left_out'])}")
    if found["method"] not in PRECISIONS[precision].portable:
        click.echo("Its products are onnxruntime's own: TensorRT cannot read these graphs.")
    click.echo(f"Bundle: {out} ({precision}, {found['method']})")

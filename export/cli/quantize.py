"""``rillet quantize``: lower the precision of a bundle."""

from __future__ import annotations

from pathlib import Path

import click

from ...runtime.bundle import Bundle
from ...runtime.cli.progress import ProgressBar
from ...runtime.cli.terminal import tell
from ...runtime.tokenizer import Tokenizer
from ..bundle.commands import generate_command
from ..quantization.conversions import METHODS, PRECISIONS
from ..quantization.held_out import FEWEST_TOKENS, TOKENS
from ..quantization.lower_precision import quantize
from ..quantization.measurement import quantize_work

__all__ = ["quantize_command"]


@click.command("quantize")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--precision",
    required=True,
    type=click.Choice(list(PRECISIONS)),
    help="int8 also runs on the native engine. Graphs in int4, and in int8 except with the method "
    "static, need ONNX Runtime.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="BUNDLE2",
    help="Folder to write; replaces an older bundle as a whole.",
)
@click.option(
    "--text",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Measure the loss on this text; of the training corpus, only the held-out part is read. "
    "Default: the sample of held-out text in BUNDLE.",
)
@click.option(
    "--max-loss-rise",
    type=click.FloatRange(0),
    metavar="X",
    help="Nats per token by which the loss may rise. Default: "
    + ", ".join(f"{entry.max_loss_rise:g} for {name}" for name, entry in PRECISIONS.items())
    + ".",
)
@click.option(
    "--method",
    type=click.Choice(METHODS),
    help="fp16: weight-only, multiply. int8: weight-only, dynamic, static (for TensorRT). "
    "int4: weight-only. Default: the first.",
)
@click.option(
    "--max-difference",
    type=click.FloatRange(0, min_open=True),
    metavar="X",
    help="fp16: largest difference of a logit or a state value from fp32's. As many products are "
    "lowered as it allows. Default: 0.005.",
)
@click.option("--recurrence", is_flag=True, help="Lower the reservoir's recurrence too.")
@click.option(
    "--tokens",
    type=click.IntRange(FEWEST_TOKENS),
    default=TOKENS,
    show_default=True,
    metavar="N",
    help="Most tokens of the text to measure.",
)
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
    """Lower the precision of BUNDLE, unless its loss rises by more than is allowed."""
    source = Bundle.open(bundle)
    # The length of a whole text is not known yet; the bar then assumes the default.
    with ProgressBar("measuring", quantize_work(source, precision, tokens)) as bar:
        lowered = quantize(
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
    cost = lowered.manifest["quantization"]
    rise = cost["loss"] - cost["loss_fp32"]
    tell(
        f"Loss on {cost['text']}, {cost['tokens']:,} tokens: {cost['loss']:.4f} nats per "
        f"token, {cost['loss_fp32']:.4f} in fp32 ({rise:+.4f}; {cost['max_loss_rise']:g} allowed)"
    )
    if "native_loss" in cost:
        native = cost["native_loss"]
        tell(f"On the native engine: {native:.4f} ({native - cost['loss_fp32']:+.4f})")
    for label, folder in (("fp32", bundle), (precision, out)):
        size = sum(file.stat().st_size for file in folder.iterdir())
        tell(f"{label}: {size / 1e6:.2f} MB")
    if cost["left_out"]:
        tell(f"Left out, in fp32 only: {', '.join(cost['left_out'])}")
    if lowered.has_graphs and cost["method"] not in PRECISIONS[precision].portable:
        tell("The graphs use ONNX Runtime's own operators: TensorRT cannot read them.")
    tell(f"Bundle: {out} ({precision}, {cost['method']})")
    tokenizer = Tokenizer.load(lowered.file("tokenizer.json"))
    tell(f"Next: {generate_command(str(out), tokenizer)}")

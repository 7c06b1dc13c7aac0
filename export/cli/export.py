"""``rillet export``: turn a checkpoint into a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ...runtime.cli.progress import ProgressBar
from ...runtime.cli.terminal import tell
from ...runtime.tokenizer import Tokenizer
from ..api import export_with_report
from ..bundle.commands import generate_command
from ..bundle.writer import export_work
from ..graphs.opset import NEWEST, OPSET
from ..options import ExportOptions
from ..parity.gate import STEPS
from ..quantization.conversions import PRECISIONS

__all__ = ["export_command"]


@click.command("export")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="BUNDLE",
    help="Folder to write; replaces an older bundle as a whole.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", *PRECISIONS]),
    default="fp32",
    show_default=True,
    help="Precision of the graphs; for the lower ones see rillet quantize.",
)
@click.option(
    "--text",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="For a lower precision: measure the loss on this text; see rillet quantize.",
)
@click.option(
    "--max-loss-rise",
    type=click.FloatRange(0),
    metavar="X",
    help="For a lower precision: nats per token by which the loss may rise.",
)
@click.option(
    "--parity-steps",
    type=click.IntRange(1),
    default=STEPS,
    show_default=True,
    metavar="N",
    help="Tokens of real text on which each graph must agree with PyTorch.",
)
@click.option(
    "--opset",
    type=int,
    default=OPSET,
    show_default=True,
    metavar="N",
    help=f"ONNX opset of the graphs, {OPSET} to {NEWEST}.",
)
@click.option(
    "--static-batch",
    type=click.IntRange(1),
    metavar="N",
    help="Also write a decoding graph with the batch fixed to N.",
)
@click.option(
    "--last-logits",
    is_flag=True,
    help="Let the prefill graph predict only after the last token: prompts are read faster.",
)
@click.option(
    "--generate/--no-generate",
    default=True,
    show_default=True,
    help="Write the graph that generates text inside itself.",
)
@click.option(
    "--onnxruntime-only",
    is_flag=True,
    help="Write a decoding graph that is faster on ONNX Runtime and that TensorRT cannot read.",
)
@click.option(
    "--native-only",
    is_flag=True,
    help="Write no graphs: only the native engine runs the bundle, which shrinks to a quarter.",
)
@click.option(
    "--text-sample/--no-text-sample",
    default=True,
    show_default=True,
    help="Let the bundle carry the sample of held-out text that RUN keeps; rillet quantize "
    "measures on it.",
)
@click.option(
    "--teach",
    multiple=True,
    metavar="CORPUS",
    help="Let streams begin with what this text teaches the memory: a file, a folder, "
    "- for standard input, as for rillet train; repeat for more.",
)
@click.option(
    "--memory-size",
    "--teach-size",
    "memory_size",
    metavar="SIZE",
    help="Size of the memory, such as 1MiB. Default: as trained.",
)
@click.option(
    "--temperature",
    type=click.FloatRange(0),
    metavar="T",
    help="Default sampling of the bundle: the temperature. Default: 0.8.",
)
@click.option(
    "--top-p",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="P",
    help="Default sampling of the bundle: top-p. Default: all tokens.",
)
@click.option(
    "--min-p",
    type=click.FloatRange(0, 1),
    metavar="P",
    help="Default sampling of the bundle: min-p. Default: all tokens.",
)
@click.option("--genai", is_flag=True, help="Also write the files that onnxruntime-genai needs.")
def export_command(
    run: Path,
    out: Path,
    precision: str,
    text: Path | None,
    max_loss_rise: float | None,
    parity_steps: int,
    opset: int,
    static_batch: int | None,
    last_logits: bool,
    generate: bool,
    onnxruntime_only: bool,
    native_only: bool,
    text_sample: bool,
    teach: tuple[str, ...],
    memory_size: str | None,
    temperature: float | None,
    top_p: float | None,
    min_p: float | None,
    genai: bool,
) -> None:
    """Export the checkpoint in RUN to a bundle, if it passes the parity gate.

    RUN is the folder of a run, or a bundle with weights, whose model is exported again.
    """
    options = ExportOptions(
        opset=opset,
        static_batch=static_batch,
        last_logits=last_logits,
        generate=generate,
        onnxruntime_only=onnxruntime_only,
        native_only=native_only,
        genai=genai,
        parity_steps=parity_steps,
        text_sample=text_sample,
        teach=teach,
        memory_size=memory_size,
        temperature=temperature,
        top_p=top_p,
        min_p=min_p,
    )
    with ProgressBar("parity", export_work(options)) as bar:

        def note(phase: str) -> None:
            bar.update(0, f"building {phase}" if phase.endswith(".onnx") else phase)

        def advance(tokens: int) -> None:
            bar.update(tokens, "")

        bundle, report = export_with_report(
            run, out, options, precision, text, max_loss_rise, advance, note
        )
    tell(report.table())
    _tell_taught(bundle.manifest.get("taught"))
    measured = bundle.manifest.get("quantization")
    if measured:
        tell(
            f"In {precision}: {measured['loss']:.4f} nats per token on {measured['text']}, "
            f"{measured['loss_fp32']:.4f} in float32."
        )
    size = sum(file.stat().st_size for file in out.iterdir())
    tell(f"Bundle: {out} ({size / 1e6:.1f} MB, {precision})")
    tokenizer = Tokenizer.load(bundle.file("tokenizer.json"))
    tell(f"Next: {generate_command(str(out), tokenizer)}")


def _tell_taught(taught: Any) -> None:
    """Say what a bundle was taught, and what that is worth."""
    if not taught:
        return
    worth = f"not measured: {taught.get('not_measured')}"
    if figures := taught.get("measured"):
        worth = (
            f"{figures['loss_taught']:.4f} nats per token on {figures['text']}, "
            f"{figures['loss_from_zeros']:.4f} from zeros"
        )
    tell(f"Taught {taught['tokens']:,} tokens of {taught['text']}: {worth}.")

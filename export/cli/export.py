"""``rillet export``: from a checkpoint to a bundle."""

from __future__ import annotations

from pathlib import Path

import click

from ...runtime.cli.progress import ProgressBar
from ..api import export_with_report
from ..graphs.opset import NEWEST, OPSET
from ..options import ExportOptions
from ..parity.gate import STEPS, gate_total
from ..parity.generate_parity import GENERATED
from ..quantization.conversions import PRECISIONS

__all__ = ["export"]


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), metavar="BUNDLE",
    help="Folder to write; an older bundle there is replaced as a whole.",
)  # fmt: skip
@click.option(
    "--precision", type=click.Choice(["fp32", *PRECISIONS]), default="fp32", show_default=True,
    help="Precision of the graphs; a lower one is reached as by rillet quantize.",
)  # fmt: skip
@click.option(
    "--text", type=click.Path(path_type=Path), metavar="FILE",
    help="For a lower precision: measure the loss on this text; see rillet quantize.",
)  # fmt: skip
@click.option(
    "--max-loss-rise", type=click.FloatRange(0), metavar="X",
    help="For a lower precision: nats per token by which the loss may rise.",
)  # fmt: skip
@click.option(
    "--parity-steps", type=click.IntRange(1), default=STEPS, show_default=True, metavar="N",
    help="Tokens of real text that each graph must agree with PyTorch on.",
)  # fmt: skip
@click.option(
    "--opset", type=int, default=OPSET, show_default=True, metavar="N",
    help=f"ONNX opset of the graphs, {OPSET} to {NEWEST}.",
)  # fmt: skip
@click.option(
    "--static-batch", type=click.IntRange(1), metavar="N",
    help="Write one more decoding graph, with the batch fixed to N.",
)  # fmt: skip
@click.option(
    "--last-logits", is_flag=True,
    help="Let the prefill graph predict after the last token only: prompts are read faster.",
)  # fmt: skip
@click.option(
    "--generate/--no-generate", default=True, show_default=True,
    help="Write the graph that draws and reads back tokens inside itself.",
)  # fmt: skip
@click.option(
    "--onnxruntime-only", is_flag=True,
    help="Write the decoding graph that is fastest on ONNX Runtime and that TensorRT cannot read.",
)  # fmt: skip
@click.option("--genai", is_flag=True, help="Write the files that onnxruntime-genai needs as well.")
def export(
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
    genai: bool,
) -> None:
    """Export the checkpoint in RUN to a bundle, if it passes the parity gate."""
    options = ExportOptions(
        opset=opset,
        static_batch=static_batch,
        last_logits=last_logits,
        generate=generate,
        onnxruntime_only=onnxruntime_only,
        genai=genai,
        parity_steps=parity_steps,
    )
    total = gate_total(parity_steps) + (GENERATED if generate else 0)
    with ProgressBar("parity", total) as bar:

        def note(what: str) -> None:
            bar.update(0, f"building {what}" if what.endswith(".onnx") else what)

        def read(tokens: int) -> None:
            bar.update(tokens, "")

        bundle, report = export_with_report(
            run, out, options, precision, text, max_loss_rise, read, note
        )
    click.echo(report.table())
    measured = bundle.manifest.get("quantization")
    if measured:
        click.echo(
            f"In {precision}: {measured['loss']:.4f} nats per token on {measured['text']}, "
            f"{measured['loss_fp32']:.4f} in float32."
        )
    size = sum(file.stat().st_size for file in out.iterdir())
    click.echo(f"Bundle: {out} ({size / 1e6:.1f} MB, {precision})")
    click.echo(f'Next: rillet generate {out} "Once"')

"""``rillet engine``: build TensorRT engines from a bundle, and look at them."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

import click

from ..bundle import Bundle
from ..engines.cuda.driver import driver_obstacle, find_gpu
from ..engines.tensorrt.api import LIBRARIES, TensorrtApi, find_tensorrt, installed_tensorrt
from ..engines.tensorrt.build import BuildOptions, build_engine
from ..engines.tensorrt.records import EngineRecord, find_records, key_for
from ..errors import EngineError, ParityError, UsageError
from .progress import ProgressBar

__all__ = ["engine"]


@click.group()
def engine() -> None:
    """Build TensorRT engines from a bundle's graphs, and look at them.

    An engine runs on the GPU, with the TensorRT and for the graph that it was built for, and is
    refused elsewhere. `--provider tensorrt` uses it, and so does `auto`.
    """


@engine.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--precision", type=click.Choice(["fp32", "fp16", "int8"]),
              help="What the bundle's graphs must be in: precision lives in them.")  # fmt: skip
@click.option("--batch", default="1", show_default=True, metavar="NUMBERS",
              help="Streams that are stepped together, with commas between: 1,8,64.")  # fmt: skip
@click.option("--graph", type=click.Choice(["decode", "prefill", "all"]), default="all",
              show_default=True, help="Prefill is kept only if it agrees with PyTorch's record.",
              )  # fmt: skip
@click.option("--timing-cache", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Kernel timings to start from and add to; beside the engines without it.",
              )  # fmt: skip
@click.option("--version-compatible", is_flag=True, help="Let later TensorRTs run it too.")
@click.option("--hardware-compatible", is_flag=True,
              help="Let every GPU from Ampere on run it, more slowly.")  # fmt: skip
@click.option("--library", type=click.Choice(LIBRARIES),
              help="The TensorRT to build with; the one that is installed without it.",
              )  # fmt: skip
@click.option("--rebuild", is_flag=True, help="Build it even where it was built before.")
@click.option("--json", "as_json", is_flag=True, help="Write the engines' records as JSON.")
def build(
    bundle: Path,
    precision: str | None,
    batch: str,
    graph: str,
    timing_cache: Path | None,
    version_compatible: bool,
    hardware_compatible: bool,
    library: str | None,
    rebuild: bool,
    as_json: bool,
) -> None:
    """Build engines from BUNDLE for this machine, and keep them beside it."""
    opened = Bundle.open(bundle)
    options = BuildOptions(_numbers(batch), timing_cache, version_compatible, hardware_compatible)
    _check_precision(opened, precision)
    api = find_tensorrt(library, build=True)
    say = (lambda _: None) if as_json else click.echo
    say(f"{api.library} on {_machine()}")
    made = []
    for name in ("decode", "prefill") if graph == "all" else (graph,):
        with ProgressBar(name) as bar:
            record, new = build_engine(
                opened, name, api, options, rebuild=rebuild, progress=bar.phase
            )
        if not new:
            say(f"{record.path.name} was built before; --rebuild builds it anew.")
        else:
            kept = _tried(opened, api, record, say)
            if kept is None:
                continue
            record = kept
        made.append(record)
        if not as_json:
            click.echo("\n".join(_lines(record)))
    if as_json:
        click.echo(json.dumps([_json(record) for record in made], indent=2))


@engine.command("list")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Write them as JSON.")
def list_engines(bundle: Path, as_json: bool) -> None:
    """List the engines that were built of BUNDLE, and whether this machine can use them."""
    opened = Bundle.open(bundle)
    rows = [(record, _misfit(opened, record)) for record in find_records(opened)]
    if as_json:
        click.echo(json.dumps([{**_json(r), "misfit": why} for r, why in rows], indent=2))
        return
    if not rows:
        click.echo(f"No engine was built of {bundle}: rillet engine build {bundle}")
    for record, why in rows:
        key = record.key
        click.echo(
            f"{record.path}\n  {key.graph}, {key.precision}, batch "
            f"{','.join(map(str, key.batches))}, {record.size / 1e6:.1f} MB, {key.library}, "
            f"{key.gpu}\n  {'fits this machine' if why is None else why}"
        )


@engine.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("name", required=False)
@click.option("--layers", is_flag=True, help="List every layer.")
@click.option("--json", "as_json", is_flag=True, help="Write it as JSON.")
def inspect(bundle: Path, name: str | None, layers: bool, as_json: bool) -> None:
    """Show what the engines of BUNDLE, or the one whose name begins with NAME, were built for."""
    opened = Bundle.open(bundle)
    records = [r for r in find_records(opened) if r.path.name.startswith(name or "")]
    if not records:
        raise UsageError(
            f"{bundle} has no engine{f' whose name begins with {name!r}' if name else ''}; see "
            f"rillet engine list {bundle}"
        )
    if as_json:
        click.echo(json.dumps([_json(record) for record in records], indent=2))
        return
    for record in records:
        click.echo("\n".join(_lines(record, layers)))


def _numbers(batch: str) -> tuple[int, ...]:
    try:
        return tuple(sorted({int(part) for part in batch.split(",")}))
    except ValueError:
        raise UsageError(
            f"--batch is {batch!r}; it must be whole numbers with commas between, such as 1,8,64"
        ) from None


def _check_precision(bundle: Bundle, precision: str | None) -> None:
    """Refuse a precision that the graphs are not in, and one that TensorRT cannot read."""
    own = str(bundle.manifest.get("precision"))
    lowered: Any = bundle.manifest.get("quantization")
    method = str(lowered.get("method")) if isinstance(lowered, dict) else None
    if precision is not None and precision != own:
        raise UsageError(
            f"{bundle.path} is in {own}, and TensorRT takes the precision from the graph: "
            + (f"build without --precision {precision}" if precision == "fp32" else
               f"make a bundle in {precision} first, where the exporter is installed: "
               f"{_quantize(bundle, precision)}")
        )  # fmt: skip
    if own not in _TAKEN or (method is not None and method not in _TAKEN[own]):
        raise UsageError(
            f"{bundle.path} is in {own}{f' ({method})' if method else ''}, whose products are "
            "onnxruntime's own, and TensorRT cannot read it; build from the float32 bundle, or "
            f"from one made with: {_quantize(bundle, 'int8')}"
        )


_TAKEN = {"fp32": (), "fp16": ("weight-only", "multiply"), "int8": ("static",)}
"""Methods of each precision whose graphs hold nothing but operators that TensorRT knows."""


def _quantize(bundle: Bundle, precision: str) -> str:
    method = " --method static" if precision == "int8" else " --method multiply"
    # A bundle in lower precision cannot be lowered again.
    source = bundle.path if bundle.manifest.get("precision") == "fp32" else "FLOAT32_BUNDLE"
    return (
        f"rillet quantize {source} --precision {precision}{method} --out "
        f"{bundle.path.name}-{precision}"
    )


def _machine() -> str:
    obstacle = driver_obstacle()
    if obstacle is not None:
        return f"a machine without a GPU ({obstacle})"
    gpu = find_gpu()
    return f"{gpu.name}, compute capability {gpu.capability}, driver for CUDA {gpu.driver}"


def _tried(bundle: Bundle, api: TensorrtApi, record: EngineRecord, say: Any) -> EngineRecord | None:
    """Run what was built, where there is a GPU, and compare with PyTorch's record.

    A Scan that TensorRT computes wrongly is known of: an engine that does not agree is removed.
    """
    if driver_obstacle() is not None:
        say(f"{record.path.name} was not tried: there is no GPU here.")
        return record
    from ..engines.tensorrt.engine import TensorrtEngine
    from ..golden import verify_golden
    from ..model import Model

    graph = record.key.graph
    try:
        tensorrt = TensorrtEngine(bundle, api.name, untried=True)
        report = verify_golden(Model(bundle, tensorrt))[graph]
        layers, memory = tensorrt.describe(graph)
    except ParityError as error:
        record.remove()
        if graph == "decode":
            raise
        click.echo(f"Note: the prefill engine was removed: {error}", err=True)
        return None
    tried = dataclasses.replace(record, verified=report.logits, layers=layers, device_memory=memory)
    tried.save()
    say(f"{record.path.name} agrees with PyTorch's record: logits within {report.logits:.1e}.")
    return tried


def _misfit(bundle: Bundle, record: EngineRecord) -> str | None:
    """Why this machine cannot use an engine; ``None`` where it can."""
    try:
        api = installed_tensorrt(record.key.library.split(" ")[0])
        obstacle = driver_obstacle()
        gpu = find_gpu() if obstacle is None else None
    except EngineError as error:
        return str(error)
    why = record.key.misfit(key_for(bundle, record.key.graph, api, gpu))
    if why is not None:
        return f"was built for {why}"
    return obstacle


def _json(record: EngineRecord) -> dict[str, Any]:
    return {"path": str(record.path), **record.to_dict()}


def _lines(record: EngineRecord, layers: bool = False) -> list[str]:
    """What an engine is, line by line."""
    shown: dict[str, Any] = record.key.to_dict()
    shown |= {
        "size": f"{record.size:,} bytes",
        "built in": f"{record.seconds:.1f} s",
        "memory": f"{record.device_memory:,} bytes for each context"
        if record.device_memory
        else "not known: it was not tried on a GPU",
        "agrees": f"with PyTorch's record to {record.verified:.1e}"
        if record.verified is not None
        else "not known: it was not tried on a GPU",
    }
    lines = [str(record.path), *(f"  {name:20} {value}" for name, value in shown.items())]
    kinds = Counter(layer["type"] or "of no known type" for layer in record.layers)
    counts = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    lines.append(f"  {'layers':20} {len(record.layers)}{f': {counts}' if counts else ''}")
    if layers:
        lines += [f"    {layer['type']:24} {layer['name']}" for layer in record.layers]
    return lines

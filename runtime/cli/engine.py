"""``rillet engine``: build TensorRT engines from a bundle, list and inspect them."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import click

from ..bundle import Bundle
from ..engines.cuda.driver import driver_obstacle, find_gpu
from ..engines.tensorrt.api import (
    LIBRARIES,
    Progress,
    TensorrtApi,
    find_tensorrt,
    installed_tensorrt,
)
from ..engines.tensorrt.build import BuildOptions, build_engine
from ..engines.tensorrt.records import EngineRecord, find_records, key_for
from ..errors import EngineError, ParityError, UsageError
from .options import parse_numbers
from .progress import ProgressBar
from .terminal import tell

__all__ = ["TENSORRT_METHODS", "engine_group"]

TENSORRT_METHODS = {"fp32": (), "fp16": ("weight-only", "multiply"), "int8": ("static",)}
"""For each precision that TensorRT can read, the methods that use none but its operators."""


@click.group("engine")
def engine_group() -> None:
    """Build TensorRT engines from a bundle's graphs, list and inspect them.

    An engine fits one GPU, one TensorRT and one graph, and is refused elsewhere. Both
    `--provider tensorrt` and `auto` use it. Experimental: no test has run on a GPU yet.
    """


@engine_group.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "int8"]),
    help="The precision that the bundle's graphs must have.",
)
@click.option(
    "--batch",
    default="1",
    show_default=True,
    metavar="NUMBERS",
    help="Numbers of streams to step together, separated by commas: 1,8,64.",
)
@click.option(
    "--graph",
    type=click.Choice(["decode", "prefill", "all"]),
    default="all",
    show_default=True,
    help="Which graph. Prefill is kept only if it agrees with PyTorch's record.",
)
@click.option(
    "--timing-cache",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Kernel timings to start from and add to; by default beside the engines.",
)
@click.option("--version-compatible", is_flag=True, help="Let later TensorRT versions run it too.")
@click.option(
    "--hardware-compatible", is_flag=True, help="Let every GPU from Ampere on run it, more slowly."
)
@click.option(
    "--library",
    type=click.Choice(LIBRARIES),
    help="The TensorRT to build with; by default the one that is installed.",
)
@click.option("--rebuild", is_flag=True, help="Build even what was built before.")
@click.option("--json", "as_json", is_flag=True, help="Print the engines' records as JSON.")
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
    batches = tuple(sorted(set(parse_numbers("--batch", batch))))
    options = BuildOptions(batches, timing_cache, version_compatible, hardware_compatible)
    opened.graph("decode")  # raises if the bundle has no graphs
    _check_precision(opened, precision)
    api = find_tensorrt(library, build=True)
    say = (lambda _: None) if as_json else tell
    say(f"{api.library} on {_machine()}")
    records = []
    for name in ("decode", "prefill") if graph == "all" else (graph,):
        with ProgressBar(name) as bar:
            record, built = build_engine(
                opened,
                name,
                api,
                options,
                rebuild=rebuild,
                progress=_phases(bar),
            )
        if not built:
            say(f"{record.path.name} was built before; --rebuild builds it again.")
        else:
            verified = _verify(opened, api, record, say)
            if verified is None:
                continue
            record = verified
        records.append(record)
        if not as_json:
            tell("\n".join(_lines(record)))
    if as_json:
        tell(json.dumps([_json(record) for record in records], indent=2))


@engine_group.command("list")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def list_engines(bundle: Path, as_json: bool) -> None:
    """List the engines built from BUNDLE, and whether this machine can use them."""
    opened = Bundle.open(bundle)
    rows = [(record, _misfit(opened, record)) for record in find_records(opened)]
    if as_json:
        tell(json.dumps([{**_json(r), "misfit": why} for r, why in rows], indent=2))
        return
    if not rows:
        tell(f"No engine was built from {bundle}: rillet engine build {shlex.quote(str(bundle))}")
    for record, why in rows:
        key = record.key
        tell(
            f"{record.path}\n  {key.graph}, {key.precision}, batch "
            f"{','.join(map(str, key.batches))}, {record.size / 1e6:.1f} MB, {key.library}, "
            f"{key.gpu}\n  {'fits this machine' if why is None else why}"
        )


@engine_group.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("name", required=False)
@click.option("--layers", is_flag=True, help="List every layer.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def inspect(bundle: Path, name: str | None, layers: bool, as_json: bool) -> None:
    """Show what the engines of BUNDLE, or those whose names begin with NAME, were built for."""
    opened = Bundle.open(bundle)
    records = [r for r in find_records(opened) if r.path.name.startswith(name or "")]
    if not records:
        raise UsageError(
            f"{bundle} has no engine{f' whose name begins with {name!r}' if name else ''}; see "
            f"rillet engine list {shlex.quote(str(bundle))}"
        )
    if as_json:
        tell(json.dumps([_json(record) for record in records], indent=2))
        return
    for record in records:
        tell("\n".join(_lines(record, layers)))


def _phases(bar: ProgressBar) -> Progress:
    def show(phase: str, done: int, total: int) -> None:
        bar.show(done, total, note=phase)

    return show


def _check_precision(bundle: Bundle, precision: str | None) -> None:
    """Refuse a precision that the graphs do not have, or that TensorRT cannot read."""
    own = str(bundle.manifest.get("precision"))
    quantization = bundle.manifest.get("quantization")
    method = str(quantization.get("method")) if isinstance(quantization, dict) else None
    if precision is not None and precision != own:
        if precision == "fp32":
            advice = "build without --precision fp32"
        else:
            advice = (
                f"make a bundle in {precision} first, where the exporter is installed: "
                f"{_quantize(bundle, precision)}"
            )
        raise UsageError(
            f"{bundle.path} is in {own}, and TensorRT takes the precision from the graph: {advice}"
        )
    if own not in TENSORRT_METHODS or (method is not None and method not in TENSORRT_METHODS[own]):
        raise UsageError(
            f"{bundle.path} is in {own}{f' ({method})' if method else ''}, whose products are "
            "onnxruntime's own, so TensorRT cannot read it; build from the float32 bundle, or "
            f"from one made with: {_quantize(bundle, 'int8')}"
        )


def _quantize(bundle: Bundle, precision: str) -> str:
    method = " --method static" if precision == "int8" else " --method multiply"
    # A bundle in lower precision cannot be lowered again.
    source = str(bundle.path) if bundle.manifest.get("precision") == "fp32" else "FLOAT32_BUNDLE"
    return (
        f"rillet quantize {shlex.quote(source)} --precision {precision}{method} --out "
        f"{shlex.quote(f'{bundle.path.name}-{precision}')}"
    )


def _machine() -> str:
    obstacle = driver_obstacle()
    if obstacle is not None:
        return f"a machine without a GPU ({obstacle})"
    gpu = find_gpu()
    return f"{gpu.name}, compute capability {gpu.capability}, driver for CUDA {gpu.driver}"


def _verify(
    bundle: Bundle, api: TensorrtApi, record: EngineRecord, say: Any
) -> EngineRecord | None:
    """Run a new engine, if there is a GPU, and compare it with PyTorch's record.

    TensorRT is known to compute some ``Scan`` wrongly, so an engine that disagrees is removed.

    Returns:
        The record with what was measured; ``None`` if a prefill engine was removed.

    Raises:
        ParityError: A decode engine disagrees.
    """
    if driver_obstacle() is not None:
        say(f"{record.path.name} was not compared with PyTorch's record: there is no GPU here.")
        return record
    from ..engines.tensorrt.engine import TensorrtEngine
    from ..golden import verify_golden
    from ..model import Model

    graph = record.key.graph
    try:
        tensorrt = TensorrtEngine(bundle, api.name, unverified=True)
        report = verify_golden(Model(bundle, tensorrt))[graph]
        layers, memory = tensorrt.describe(graph)
    except ParityError as error:
        record.remove()
        if graph == "decode":
            raise
        tell(f"Note: the prefill engine was removed: {error}", err=True)
        return None
    verified = dataclasses.replace(
        record, verified=report.logits, layers=layers, device_memory=memory
    )
    verified.save()
    say(f"{record.path.name} agrees with PyTorch's record: logits within {report.logits:.1e}.")
    return verified


def _misfit(bundle: Bundle, record: EngineRecord) -> str | None:
    """Say why this machine cannot use an engine; ``None`` if it can."""
    try:
        api = installed_tensorrt(record.key.library.split(" ")[0])
        obstacle = driver_obstacle()
        gpu = find_gpu() if obstacle is None else None
    except EngineError as error:
        return str(error)
    misfit = record.key.misfit(key_for(bundle, record.key.graph, api, gpu))
    return obstacle if misfit is None else f"was built for {misfit}"


def _json(record: EngineRecord) -> dict[str, Any]:
    return {"path": str(record.path), **record.to_dict()}


def _lines(record: EngineRecord, layers: bool = False) -> list[str]:
    """Describe an engine, line by line."""
    unknown = "unknown: it has not run on a GPU"
    rows: dict[str, Any] = record.key.to_dict() | {
        "size": f"{record.size:,} bytes",
        "built in": f"{record.seconds:.1f} s",
        "memory": f"{record.device_memory:,} bytes for each context"
        if record.device_memory
        else unknown,
        "agrees": f"with PyTorch's record to {record.verified:.1e}"
        if record.verified is not None
        else unknown,
    }
    lines = [str(record.path), *(f"  {name:20} {value}" for name, value in rows.items())]
    kinds = Counter(layer["type"] or "of unknown type" for layer in record.layers)
    counts = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    lines.append(f"  {'layers':20} {len(record.layers)}{f': {counts}' if counts else ''}")
    if layers:
        lines += [f"    {layer['type']:24} {layer['name']}" for layer in record.layers]
    return lines

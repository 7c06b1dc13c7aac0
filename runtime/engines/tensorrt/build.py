"""Build a TensorRT engine from a graph, with the API that every version has."""

from __future__ import annotations

import contextlib
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...bundle import Bundle
from ...errors import EngineError, StorageError, UsageError
from ...files import write_atomic
from ..cache import cache_folder
from ..cuda.driver import driver_obstacle, find_gpu
from .api import Progress, TensorrtApi
from .records import EngineRecord, find_records, key_for, save_engine

__all__ = ["PREFILL_LENGTHS", "BuildOptions", "build_engine", "build_graph", "parse"]

PREFILL_LENGTHS = (1, 64, 256)
"""Fewest, best and most tokens of a call of the prefill graph."""


@dataclass(frozen=True)
class BuildOptions:
    """How to build.

    Attributes:
        batches: The numbers of rows that the engine steps, each with kernels chosen for it.
        timing_cache: A file of kernel timings to start from and add to; by default one beside
            the engines.
        version_compatible: Let later versions of the same major run it too.
        hardware_compatible: Let every GPU from compute capability 8.0 on run it.

    Raises:
        UsageError: A value can never work.
    """

    batches: tuple[int, ...] = (1,)
    timing_cache: Path | None = None
    version_compatible: bool = False
    hardware_compatible: bool = False

    def __post_init__(self) -> None:
        sizes = self.batches
        valid = bool(sizes) and all(type(size) is int and size > 0 for size in sizes)
        if not valid or list(sizes) != sorted(set(sizes)):
            raise UsageError(
                f"batches is {sizes}; give whole numbers from 1 in ascending order, each once"
            )


def build_engine(
    bundle: Bundle,
    graph: str,
    api: TensorrtApi,
    options: BuildOptions,
    *,
    rebuild: bool = False,
    progress: Progress | None = None,
) -> tuple[EngineRecord, bool]:
    """Build an engine from one of a bundle's graphs, and keep it beside the bundle.

    Args:
        bundle: The bundle.
        graph: ``decode`` or ``prefill``.
        api: The TensorRT to build with.
        options: How to build.
        rebuild: Build it even if it was built before.
        progress: Called on the way.

    Returns:
        The engine's record, and whether it was built now.

    Raises:
        EngineError: TensorRT cannot build it.
    """
    only = bundle.manifest["graphs"].get(graph, {}).get("only")
    if only is not None:
        raise EngineError(
            f"{bundle.graph(graph)} was written for {only} alone, so TensorRT cannot read it; "
            "export without --onnxruntime-only, or build from a bundle in another precision"
        )
    gpu = find_gpu() if driver_obstacle() is None else None
    lengths = PREFILL_LENGTHS if graph == "prefill" else (1, 1, 1)
    key = key_for(
        bundle,
        graph,
        api,
        gpu,
        batches=options.batches,
        lengths=lengths,
        version_compatible=options.version_compatible,
        hardware_compatible=options.hardware_compatible,
    )
    if not rebuild:
        for record in find_records(bundle, graph):
            if record.key == key:
                return record, False
    folder = cache_folder(bundle)
    began = time.perf_counter()
    timings = options.timing_cache or folder / f"timings-{api.name}-{api.version}.cache"
    data = build_graph(
        api, bundle.graph(graph).read_bytes(), options, lengths, timings, progress, graph
    )
    return save_engine(folder, data, key, time.perf_counter() - began), True


def build_graph(
    api: TensorrtApi,
    model: bytes,
    options: BuildOptions,
    lengths: tuple[int, ...] = (1, 1, 1),
    timings: Path | None = None,
    progress: Progress | None = None,
    name: str = "the graph",
) -> bytes:
    """Build an engine from an ONNX graph.

    Args:
        api: The TensorRT to build with.
        model: The graph.
        options: How to build.
        lengths: Fewest, best and most tokens of a call.
        timings: A file of kernel timings to read and write.
        progress: Called on the way.
        name: What to call the graph in messages.

    Returns:
        The engine, serialised.

    Raises:
        EngineError: TensorRT cannot read the graph or build the engine; quotes its messages.
    """
    logger, builder, network, _ = parse(api, model, name)
    config = builder.create_builder_config()
    _configure(api, config, options)
    monitor = None
    if progress is not None:
        monitor = api.monitor(progress)
        config.progress_monitor = monitor
    for batch in options.batches:
        config.add_optimization_profile(_profile(builder, network, batch, lengths))
    cache = _timing_cache(config, timings)
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        errors = logger.errors or ["it gives no reason"]
        raise EngineError(f"{api.library} cannot build {name}: {'; '.join(errors)}")
    if cache is not None and timings is not None:
        try:
            write_atomic(timings, bytes(config.get_timing_cache().serialize()))
        except StorageError as error:  # not worth losing a finished engine for
            warnings.warn(f"the kernel timings of this build were not saved: {error}", stacklevel=2)
    return bytes(serialized)


def parse(api: TensorrtApi, model: bytes, name: str) -> tuple[Any, Any, Any, Any]:
    """Read an ONNX graph into a network.

    Args:
        api: The TensorRT to read it with.
        model: The graph.
        name: What to call it in messages.

    Returns:
        Logger, builder, network and parser; keep them all as long as the network.

    Raises:
        EngineError: TensorRT cannot read it; quotes its messages.
    """
    trt, logger = api.trt, api.logger()
    builder = trt.Builder(logger)
    network = builder.create_network(api.network_flags())
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model):
        errors = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        raise EngineError(f"{api.library} cannot read {name}: {'; '.join(errors)}")
    return logger, builder, network, parser


def _configure(api: TensorrtApi, config: Any, options: BuildOptions) -> None:
    trt = api.trt
    # On by default, but its ten bits of mantissa are not within the tolerance of float32.
    config.clear_flag(trt.BuilderFlag.TF32)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS


def _profile(builder: Any, network: Any, batch: int, lengths: tuple[int, ...]) -> Any:
    """Make a profile for one number of rows; at most the length is left open."""
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        entry = network.get_input(index)
        profile.set_shape(entry.name, *input_shapes(tuple(entry.shape), batch, lengths))
    return profile


def input_shapes(
    shape: tuple[int, ...], batch: int, lengths: tuple[int, ...]
) -> list[tuple[int, ...]]:
    """Smallest, best and largest shape of an input.

    Args:
        shape: Its shape in the graph, with -1 for open sizes: rows on axis 0, tokens elsewhere.
        batch: Number of rows.
        lengths: Fewest, best and most tokens of a call.
    """
    return [
        tuple(
            size if size != -1 else (batch if axis == 0 else length)
            for axis, size in enumerate(shape)
        )
        for length in lengths
    ]


def _timing_cache(config: Any, timings: Path | None) -> Any:
    """Start from earlier timings, if they are by the same library on the same GPU."""
    if timings is None:
        return None
    data = b""
    with contextlib.suppress(OSError):
        data = timings.read_bytes()
    cache = config.create_timing_cache(data)
    if cache is None and data:
        cache = config.create_timing_cache(b"")
    if cache is None or not config.set_timing_cache(cache, False):
        return None
    return cache

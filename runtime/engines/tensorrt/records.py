"""Engines on disk: each a file for TensorRT and a JSON record of what it was built for."""

from __future__ import annotations

import dataclasses
import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...bundle import Bundle, read_json_object
from ...errors import BundleError, EngineError
from ...files import sha256_bytes, sha256_file, write_atomic
from ..cache import engine_files
from ..cuda.driver import Gpu, find_gpu
from ..engine_key import EngineKey, this_platform
from .api import TensorrtApi

__all__ = ["EngineRecord", "chosen_record", "find_records", "key_for", "save_engine"]

_FORMAT = "rillet-engine"
_VERSION = "1.0"


@dataclass(frozen=True)
class EngineRecord:
    """An engine on disk.

    Attributes:
        path: The engine's file; its record lies beside it, ``.json`` instead of ``.engine``.
        key: What it was built for.
        sha256: Hash of the file.
        size: Size of the file in bytes.
        seconds: How long building took.
        layers: Name and type of each layer; empty if it never ran on a GPU.
        device_memory: Bytes that one stream's context takes; 0 if unknown.
        verified: Largest |difference| of a logit from PyTorch's record, measured on the GPU that
            it was built on; ``None`` if it never ran on one.
    """

    path: Path
    key: EngineKey
    sha256: str
    size: int
    seconds: float
    layers: list[dict[str, str]]
    device_memory: int
    verified: float | None

    def to_dict(self) -> dict[str, Any]:
        """The record as a JSON value, without the path."""
        fields = {name: value for name, value in vars(self).items() if name != "path"}
        return {
            "format": _FORMAT,
            "format_version": _VERSION,
            **fields,
            "key": self.key.to_dict(),
        }

    def read(self) -> bytes:
        """Read the engine's file.

        Raises:
            EngineError: It is missing or damaged.
        """
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise EngineError(f"{self.path} cannot be read ({error}); {_BUILD}") from error
        if sha256_bytes(data) != self.sha256:
            raise EngineError(
                f"{self.path} is damaged: its SHA-256 is not the one in its record; {_BUILD}"
            )
        return data

    def save(self) -> None:
        """Write the record."""
        text = json.dumps(self.to_dict(), indent=2) + "\n"
        write_atomic(self.path.with_suffix(".json"), text.encode())

    def remove(self) -> None:
        """Remove the record, then the engine."""
        self.path.with_suffix(".json").unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)


_BUILD = "build it again: rillet engine build BUNDLE --rebuild"


def key_for(
    bundle: Bundle,
    graph: str,
    api: TensorrtApi,
    gpu: Gpu | None,
    batches: tuple[int, ...] = (1,),
    lengths: tuple[int, ...] = (1, 1, 1),
    version_compatible: bool = False,
    hardware_compatible: bool = False,
) -> EngineKey:
    """The key of an engine that this machine would build from a graph.

    Args:
        bundle: The bundle.
        graph: Name of the graph.
        api: The installed TensorRT.
        gpu: The GPU; ``None`` if there is none, which some libraries can build without.
        batches: The numbers of rows.
        lengths: Fewest, best and most tokens of a call.
        version_compatible: See :class:`EngineKey`.
        hardware_compatible: See :class:`EngineKey`.
    """
    target = None if api.compiles_when_loaded else gpu
    return EngineKey(
        graph=graph,
        graph_sha256=sha256_file(bundle.graph(graph)),
        precision=str(bundle.manifest.get("precision")),
        library=api.library,
        gpu="any" if target is None else target.name,
        capability="any" if target is None else target.capability,
        driver="none" if gpu is None else gpu.driver,
        platform=this_platform(),
        batches=batches,
        lengths=lengths,
        version_compatible=version_compatible,
        hardware_compatible=hardware_compatible,
    )


def save_engine(folder: Path, data: bytes, key: EngineKey, seconds: float) -> EngineRecord:
    """Write an engine, then its record; an engine without a record is ignored.

    An older engine with the same key is removed once the new one is complete. The two alternate
    between two names, so that a power cut always leaves one that can be used.

    Args:
        folder: Where to write.
        data: The engine.
        key: What it was built for.
        seconds: How long building took.
    """
    stem = f"{key.graph}-{key.precision}-{key.digest}"
    path, before = folder / f"{stem}.engine", folder / f"{stem}-b.engine"
    if path.with_suffix(".json").exists():
        path, before = before, path
    record = EngineRecord(path, key, sha256_bytes(data), len(data), round(seconds, 2), [], 0, None)
    path.with_suffix(".json").unlink(missing_ok=True)
    write_atomic(path, data)
    record.save()
    dataclasses.replace(record, path=before).remove()
    return record


def find_records(bundle: Bundle, graph: str | None = None) -> list[EngineRecord]:
    """Find the engines of a bundle, beside it and in the cache, the newest first.

    Args:
        bundle: The bundle.
        graph: Name of the graph; by default all graphs.

    Raises:
        EngineError: A record cannot be read.
    """
    records = []
    for file in engine_files(bundle, "*.json"):
        record = _read(file)
        # If somebody has removed the engine, its record is left over.
        if graph in (None, record.key.graph) and record.path.is_file():
            records.append(record)
    return sorted(records, key=lambda record: record.path.stat().st_mtime, reverse=True)


def chosen_record(bundle: Bundle, graph: str, api: TensorrtApi) -> EngineRecord | None:
    """Choose the newest engine of a graph that fits this machine.

    Args:
        bundle: The bundle.
        graph: Name of the graph.
        api: The installed TensorRT.

    Returns:
        The engine; ``None`` if none was built.

    Raises:
        EngineError: There are engines, and none fits; names each, and why.
    """
    records = find_records(bundle, graph)
    if not records:
        return None
    here = key_for(bundle, graph, api, find_gpu())
    misfits = {record.path.name: record.key.misfit(here) for record in records}
    for record in records:
        if misfits[record.path.name] is None:
            return record
    reasons = ", and ".join(f"{name} was built for {why}" for name, why in misfits.items())
    raise EngineError(
        f"{reasons}; engines are not rebuilt automatically: rillet engine build "
        f"{shlex.quote(str(bundle.path))}"
    )


def _read(file: Path) -> EngineRecord:
    try:
        value = read_json_object(file)
    except BundleError as error:
        raise EngineError(f"{error}; or remove it") from error
    version = value.get("format_version")
    if value.get("format") != _FORMAT or not isinstance(version, str):
        raise EngineError(f"{file} is not the record of an engine; remove it")
    if version.split(".")[0] != _VERSION.split(".")[0]:
        raise EngineError(
            f"{file} has format version {version}, and this rillet reads {_VERSION}; install a "
            "newer rillet, or build the engine with this one"
        )
    try:
        key = EngineKey.from_dict(value["key"])
        verified = value["verified"]
        return EngineRecord(
            path=file.with_suffix(".engine"),
            key=key,
            sha256=str(value["sha256"]),
            size=int(value["size"]),
            seconds=float(value["seconds"]),
            layers=[
                {"name": str(layer["name"]), "type": str(layer["type"])}
                for layer in value["layers"]
            ],
            device_memory=int(value["device_memory"]),
            verified=None if verified is None else float(verified),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise EngineError(
            f"{file} cannot be read ({error!r}); remove it and build the engine again"
        ) from error
    except EngineError as error:
        raise EngineError(f"{file}: {error}; remove it and build the engine again") from error

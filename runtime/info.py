"""Facts about a loaded model: what it is, where it runs, and how large its state is."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from .loaded import LoadedModel

__all__ = ["ModelInfo"]


_ENTRIES = ("memory_tokens", "memory_slots")
"""The tensors that have one value for each entry of a memory."""


@dataclass(frozen=True)
class ModelInfo:
    """Facts about a loaded model.

    Attributes:
        path: The bundle's folder.
        format_version: The bundle's format version.
        precision: Precision of the weights and the arithmetic, such as ``fp32``.
        provider: The execution provider that runs the graphs' nodes.
        engine: The engine and its version.
        threads: Threads that one step may use.
        vocab_size: Number of tokens in the vocabulary.
        parameters: Number of trained parameters; ``None`` if the bundle does not record it.
        memory: Capacity of a stream's memory, in entries; 0 without a memory.
        state_bytes: Size of one stream's state, and so of a fork or a saved stream.
        bundle_bytes: Total size of the bundle's files.
        graphs: Size of each graph in bytes, keyed by its name.
        weights_sha256: SHA-256 of the weights.
    """

    path: str
    format_version: str
    precision: str
    provider: str
    engine: str
    threads: int
    vocab_size: int
    parameters: int | None
    memory: int
    state_bytes: int
    bundle_bytes: int
    graphs: dict[str, int]
    weights_sha256: str

    def to_dict(self) -> dict[str, Any]:
        """All facts as a JSON value."""
        return dataclasses.asdict(self)

    @classmethod
    def of(cls, model: LoadedModel) -> ModelInfo:
        """Collect the facts about a model."""
        bundle = model.bundle
        manifest = bundle.manifest
        training = manifest.get("training")
        parameters = training.get("parameters") if isinstance(training, dict) else None
        memory = [row.shape[0] for row in bundle.state if row.name in _ENTRIES]
        names = {entry["file"]: name for name, entry in manifest["graphs"].items()}
        sizes = {name: bundle.file(name).stat().st_size for name in bundle.hashes()}
        return cls(
            path=str(bundle.path),
            format_version=str(manifest["format_version"]),
            precision=str(manifest.get("precision")),
            provider=model.engine.provider,
            engine=model.engine.version,
            threads=model.engine.threads,
            vocab_size=model.vocab_size,
            parameters=parameters if type(parameters) is int else None,
            memory=memory[0] if memory else 0,
            state_bytes=sum(
                int(np.prod(row.shape)) * np.dtype(row.dtype).itemsize for row in bundle.state
            ),
            bundle_bytes=sum(sizes.values()),
            graphs={names[file]: size for file, size in sizes.items() if file in names},
            weights_sha256=str(manifest.get("weights_sha256")),
        )

"""What a loaded model is, where it runs, and what a stream of it costs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from .loaded import LoadedModel

__all__ = ["ModelInfo"]


@dataclass(frozen=True)
class ModelInfo:
    """What a loaded model is.

    Attributes:
        path: The bundle's folder.
        format_version: The bundle's.
        precision: Of the weights and of the arithmetic, such as ``fp32``.
        provider: The execution provider that owns the graphs' nodes.
        engine: The engine and its version.
        threads: Threads that one step may use.
        vocab_size: Number of tokens.
        parameters: Trained parameters; ``None`` where the bundle does not say.
        memory: Entries that a stream's memory holds; 0 without one.
        state_bytes: Bytes of one stream's state: of a saved stream, and of a fork's copy.
        bundle_bytes: Bytes of the bundle's files.
        graphs: Bytes of each graph.
        weights_sha256: Hash of the weights.
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
        """Everything as a JSON value."""
        return dataclasses.asdict(self)

    @classmethod
    def of(cls, model: LoadedModel) -> ModelInfo:
        """Look it up."""
        bundle = model.bundle
        manifest = bundle.manifest
        training = manifest.get("training")
        parameters = training.get("parameters") if isinstance(training, dict) else None
        memory = [row.shape[0] for row in bundle.state if row.name == "memory_tokens"]
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

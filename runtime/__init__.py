"""Run a bundle: stateful text generation with numpy and one inference engine.

Nothing here imports torch or onnx::

    import rillet.runtime

    model = rillet.runtime.load("my-model")
    for piece in model.stream("ROMEO:", max_new_tokens=200, temperature=0.8, seed=7):
        print(piece, end="", flush=True)
"""

from __future__ import annotations

from .bundle import Bundle
from .errors import (
    BundleError,
    ConfigError,
    CorpusError,
    EngineError,
    ParityError,
    RilletError,
    StateError,
    StorageError,
    UsageError,
)
from .info import ModelInfo
from .model import Model, load
from .sampling.sampler import Sampler, SamplingParams
from .sampling.stats import GenerationStats
from .streams.batch import Batch
from .streams.beam_search import BeamText
from .streams.encoding import UnknownCharacterWarning
from .streams.generation import GeneratedToken
from .streams.score import Score
from .streams.session import Session
from .streams.snapshot import Snapshot
from .streams.text_stream import TextStream, TokenStream
from .tokenizer import TextDecoder, Tokenizer

__all__ = [
    "Batch",
    "BeamText",
    "Bundle",
    "BundleError",
    "ConfigError",
    "CorpusError",
    "EngineError",
    "GeneratedToken",
    "GenerationStats",
    "Mark",
    "Model",
    "ModelInfo",
    "ParityError",
    "RilletError",
    "Sampler",
    "SamplingParams",
    "Score",
    "Session",
    "Snapshot",
    "StateError",
    "StorageError",
    "TextDecoder",
    "TextStream",
    "TokenStream",
    "Tokenizer",
    "UnknownCharacterWarning",
    "UsageError",
    "__version__",
    "load",
]


Mark = Snapshot
"""The former name of :class:`Snapshot`."""


def __getattr__(name: str) -> str:
    if name == "__version__":
        # Looked up when it is asked for: that takes as long as half of the other imports.
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("rillet")
        except PackageNotFoundError:  # pragma: no cover - run from a bare checkout
            return "0+unknown"
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

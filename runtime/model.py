"""A loaded bundle: shared by any number of streams."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .bundle import Bundle
from .engines.base import Engine
from .errors import BundleError, UsageError
from .info import ModelInfo
from .sampling.params import SamplingParams
from .streams.batch import Batch
from .streams.score import Score
from .streams.session import Session
from .streams.text_stream import GenerationStats, TextStream
from .tokenizer import Tokenizer

if TYPE_CHECKING:
    from .engines.ort.generate_graph import GraphGenerator

__all__ = ["Model", "load"]

log = logging.getLogger("rillet")
log.addHandler(logging.NullHandler())


def load(
    path: str | Path,
    provider: str = "auto",
    threads: int = 1,
    *,
    allow_fallback: bool = False,
    self_test: bool = True,
) -> Model:
    """Load a bundle.

    Args:
        path: The folder that ``rillet export`` wrote.
        provider: The execution provider: ``cpu``, ``cuda``, ``tensorrt`` (an engine that
            ``rillet engine build`` built, or ONNX Runtime's provider where there is none), or
            ``auto`` for the best one that is present and works. One that is named and cannot run
            is an error.
        threads: Threads that one step may use. One is best for small models.
        allow_fallback: Run on the CPU, with a warning, where the provider cannot run; and go over
            to it, from the same state, where a step fails later.
        self_test: Compare some sixty steps with the record in the bundle.

    Returns:
        The model, ready to generate.

    Raises:
        BundleError: There is no bundle, or it is damaged or of a newer format.
        EngineError: The provider cannot run here, or fails the self-test.
        UsageError: ``threads`` is below 1.
    """
    if type(threads) is not int or threads < 1:
        raise UsageError(f"threads is {threads!r}; it must be a whole number, 1 or above")
    # An engine is imported when a model is loaded: the package imports without one.
    from .engines.select import open_engine
    from .golden import self_test as test

    bundle = Bundle.open(path)
    tokenizer = _tokenizer(bundle)
    engine = open_engine(bundle, provider, threads, allow_fallback)
    model = Model(bundle, engine, tokenizer)
    log.info("%s runs on %s", path, model.engine.provider)
    if self_test:
        test(model)
    return model


class Model:
    """A bundle with an engine. Threads may share it; each has its own sessions.

    Args:
        bundle: An opened bundle.
        engine: The engine that runs its graphs.
        tokenizer: The bundle's tokenizer, where it is loaded already.
    """

    def __init__(
        self, bundle: Bundle, engine: Engine[Any], tokenizer: Tokenizer | None = None
    ) -> None:
        self.bundle = bundle
        self.engine = engine
        self.tokenizer = tokenizer or _tokenizer(bundle)
        self.vocab_size = bundle.vocab_size
        defaults = bundle.generation_defaults()
        names = {field.name for field in dataclasses.fields(SamplingParams)}
        self._defaults = {
            name: value for name, value in defaults.items() if name in names and value is not None
        }
        start = defaults.get("bos_token_id", 0)
        if type(start) is not int or not 0 <= start < self.vocab_size:
            raise BundleError(f"{bundle.path}: bos_token_id is {start!r}, which is no token")
        self.start_token: int = start
        self.on_finish: Callable[[GenerationStats], object] | None = None
        """Called with the figures of each generation when it ends, for metrics."""

    def sampling(self, params: SamplingParams | None = None, **changes: Any) -> SamplingParams:
        """The bundle's default sampling, or ``params``, with some fields changed.

        Raises:
            UsageError: A field is unknown or its value can never work.
        """
        base = SamplingParams(**self._defaults) if params is None else params
        known = {field.name for field in dataclasses.fields(SamplingParams)}
        unknown = sorted(set(changes) - known)
        if unknown:
            raise UsageError(
                f"{', '.join(unknown)}: no such sampling option; there are "
                f"{', '.join(sorted(known))}"
            )
        return dataclasses.replace(base, **changes)

    @functools.cached_property
    def graph_generator(self) -> GraphGenerator:
        """The generating graph of the bundle, loaded when it is first needed.

        Raises:
            BundleError: The bundle has none.
            UsageError: The engine is not ONNX Runtime on the processor.
        """
        from .engines.ort.generate_graph import GraphGenerator
        from .engines.ort.host_engine import OnnxEngine

        if not isinstance(self.engine, OnnxEngine):
            raise UsageError(
                "generating in the graph needs ONNX Runtime on the processor, and this model runs "
                f"on {self.engine.provider}; load it with provider='cpu', or step it"
            )
        return GraphGenerator(self.engine, self.engine.threads)

    @property
    def info(self) -> ModelInfo:
        """What the model is, where it runs, and what a stream of it takes."""
        return ModelInfo.of(self)

    def session(self, learn: str = "read", memory: bool = True) -> Session:
        """A new stream; see :class:`Session`."""
        return Session(self, learn, memory)

    def stream(
        self,
        prompt: str | Iterable[str] = "",
        *,
        learn: str = "read",
        memory: bool = True,
        on_text: Callable[[str], object] | None = None,
        **sampling: Any,
    ) -> TextStream:
        """Read a prompt and generate text piece by piece, in a new stream.

        Args:
            prompt: The text to continue, or its pieces.
            learn: What the stream's memory stores; see :class:`Session`.
            memory: Whether the stream has a memory; see :class:`Session`.
            on_text: Called with each piece.
            **sampling: Fields of :class:`SamplingParams`.

        Returns:
            An iterator over pieces of text.
        """
        session = self.session(learn, memory)
        params = self.sampling(**sampling)
        session.feed(prompt)
        return session.stream(params, on_text=on_text)

    def generate(
        self,
        prompt: str | Iterable[str] = "",
        *,
        learn: str = "read",
        memory: bool = True,
        on_text: Callable[[str], object] | None = None,
        **sampling: Any,
    ) -> str:
        """Read a prompt and generate a text; the arguments are those of :meth:`stream`."""
        return "".join(self.stream(prompt, learn=learn, memory=memory, on_text=on_text, **sampling))

    def batch(self) -> Batch:
        """A batch, in which sessions of this model take their steps together."""
        return Batch(self)

    def score(
        self,
        text: str | Iterable[str],
        *,
        learn: str = "read",
        memory: bool = True,
        per_token: bool = False,
        progress: Callable[[int], object] | None = None,
    ) -> Score:
        """Measure how well a new stream predicts a text; see :meth:`Session.score`."""
        with self.session(learn, memory) as session:
            return session.score(text, per_token=per_token, progress=progress)

    def restore(self, path: str | Path) -> Session:
        """Open a stream that :meth:`Session.save` wrote: it goes on as if it had never stopped.

        Args:
            path: The file.

        Returns:
            The session.

        Raises:
            StateError: The file is missing, damaged, of a newer version, or of another model.
        """
        from .streams.saved_state import load_session

        return load_session(self, Path(path))

    def close(self) -> None:
        """Let go of the engine's graphs; what is used after that loads them anew."""
        self.engine.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _report(self, stats: GenerationStats) -> None:
        log.debug("generated %d tokens in %.3f s", stats.tokens, stats.seconds)
        if self.on_finish is not None:
            self.on_finish(stats)


def _tokenizer(bundle: Bundle) -> Tokenizer:
    """The bundle's tokenizer, if it fits the model."""
    tokenizer = Tokenizer.load(bundle.file("tokenizer.json"))
    if tokenizer.vocab_size != bundle.vocab_size:
        raise BundleError(
            f"{bundle.path}: the tokenizer has {tokenizer.vocab_size} tokens and the "
            f"model {bundle.vocab_size}; export the bundle again"
        )
    return tokenizer

"""Load a bundle, and make streams of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from .bundle import Bundle
from .engines.base import Engine, ProviderChoice
from .errors import UsageError
from .files import as_path
from .info import ModelInfo
from .loaded import LoadedModel, load_tokenizer
from .sampling.param_checks import checked_flag
from .scalars import plain
from .streams.batch import Batch
from .streams.score import Score
from .streams.session import Session
from .streams.stream import LearnMode
from .streams.text_stream import TextStream

__all__ = ["Model", "load"]

log = logging.getLogger("rillet")


def load(
    path: str | Path,
    provider: ProviderChoice = "auto",
    threads: int = 1,
    *,
    allow_fallback: bool = False,
    self_test: bool = True,
    revision: str | None = None,
) -> Model:
    """Load a bundle.

    Args:
        path: The folder that ``rillet export`` wrote, or ``hf:OWNER/NAME`` for one that lies on
            the Hugging Face Hub, which is downloaded once into the hub's cache.
        provider: What runs the model: ``native``, our own library; ``cpu``, ``cuda`` (ONNX
            Runtime); ``tensorrt`` (an engine that ``rillet engine build`` built); or ``auto`` for
            the best one that is present and works. A named provider that cannot run is an error.
            ``cuda`` and ``tensorrt`` are experimental.
        threads: Threads that one step may use. One is best for small models.
        allow_fallback: Run on the CPU, with a warning, if the provider cannot run; and switch to
            it, from the same state, if a later step fails.
        self_test: Compare some sixty steps with the record in the bundle.
        revision: Which version of a bundle on the hub: a branch, a tag or a commit; also
            ``hf:OWNER/NAME@REVISION``.

    Returns:
        The model, ready to generate.

    Raises:
        BundleError: There is no bundle, or it is damaged or of a newer format.
        EngineError: The provider cannot run here, or fails the self-test.
        UsageError: ``threads`` is below 1, or a folder is given with a revision.
    """
    threads = plain(threads)
    if type(threads) is not int or threads < 1:
        raise UsageError(f"threads is {threads!r}; it must be a whole number, 1 or above")
    checked_flag("allow_fallback", allow_fallback)
    checked_flag("self_test", self_test)
    # Imported here, so that the package imports without an engine.
    from .engines.select import open_engine
    from .golden import self_test as run_self_test

    bundle = Bundle.open(path, revision)
    tokenizer = load_tokenizer(bundle)

    def check(engine: Engine) -> None:
        run_self_test(LoadedModel(bundle, engine, tokenizer))

    engine = open_engine(bundle, provider, threads, allow_fallback, check if self_test else None)
    log.info("%s runs on %s", path, engine.provider)
    return Model(bundle, engine, tokenizer)


class Model(LoadedModel):
    """A bundle with an engine. Threads may share it; each has its own sessions.

    Args:
        bundle: An open bundle.
        engine: The engine that runs its graphs.
        tokenizer: The bundle's tokenizer, if it is loaded already.
    """

    @property
    def info(self) -> ModelInfo:
        """What the model is, where it runs, and what a stream of it costs."""
        return ModelInfo.of(self)

    def session(
        self, learn: LearnMode = "read", memory: bool = True, taught: bool = True
    ) -> Session:
        """Open a new stream; see :class:`Session`."""
        return Session(self, learn, memory, taught)

    def stream(
        self,
        prompt: str | Iterable[str] = "",
        *,
        learn: LearnMode = "read",
        memory: bool = True,
        taught: bool = True,
        on_text: Callable[[str], object] | None = None,
        **sampling: Any,
    ) -> TextStream:
        """Read a prompt and generate text piece by piece, in a new stream.

        Args:
            prompt: The text to continue, or its pieces.
            learn: What the stream's memory stores; see :class:`Session`.
            memory: Whether the stream has a memory; see :class:`Session`.
            taught: Whether it begins with what the bundle taught; see :class:`Session`.
            on_text: Called with each piece.
            **sampling: Fields of :class:`SamplingParams`.

        Returns:
            An iterator over pieces of text.
        """
        session = self.session(learn, memory, taught)
        params = self.sampling(**sampling)
        session.feed(prompt)
        return session.stream(params, on_text=on_text)

    def generate(
        self,
        prompt: str | Iterable[str] = "",
        *,
        learn: LearnMode = "read",
        memory: bool = True,
        taught: bool = True,
        on_text: Callable[[str], object] | None = None,
        best_of: int = 1,
        **sampling: Any,
    ) -> str:
        """Read a prompt and generate a text; the arguments are those of :meth:`stream`.

        Of ``best_of`` drafts it writes the likeliest: see :meth:`Session.generate`.
        """
        session = self.session(learn, memory, taught)
        params = self.sampling(**sampling)
        session.feed(prompt)
        return session.generate(params, on_text=on_text, best_of=best_of)

    def batch(self) -> Batch:
        """Open a batch, in which sessions of this model step together."""
        return Batch(self)

    def score(
        self,
        text: str | Iterable[str],
        *,
        learn: LearnMode = "read",
        memory: bool = True,
        taught: bool = True,
        per_token: bool = False,
        progress: Callable[[int], object] | None = None,
    ) -> Score:
        """Measure how well a new stream predicts a text; see :meth:`Session.score`."""
        with self.session(learn, memory, taught) as session:
            return session.score(text, per_token=per_token, progress=progress)

    def restore(self, path: str | Path) -> Session:
        """Open a stream that :meth:`Session.save` wrote: it continues as if it had never stopped.

        Args:
            path: The file.

        Returns:
            The session.

        Raises:
            StateError: The file is missing, damaged, of a newer version, or of another model.
        """
        from .streams.saved_state import load_stream

        saved = load_stream(self, as_path(path))
        session = self.session(saved.learn, saved.memory, saved.taught)
        session.rollback(saved.snapshot)
        return session

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

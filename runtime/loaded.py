"""A bundle, opened and ready to run: what every stream of it shares."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

from .bundle import Bundle
from .engines.base import Drafter, Engine, EngineState, TokenGenerator, Values
from .errors import BundleError, UsageError
from .sampling.params import SamplingParams
from .sampling.stats import GenerationStats
from .tokenizer import Tokenizer
from .uncopied import Uncopied

__all__ = ["LoadedModel", "load_tokenizer"]

log = logging.getLogger("rillet")
log.addHandler(logging.NullHandler())

_OPTIONS = {field.name for field in dataclasses.fields(SamplingParams)}


class LoadedModel(Uncopied):
    """A bundle with the engine that runs it, its tokenizer and its sampling defaults.

    Streams need no more than this; :class:`rillet.runtime.Model` adds what makes them.

    Args:
        bundle: An open bundle.
        engine: The engine that runs its graphs.
        tokenizer: The bundle's tokenizer, if it is loaded already.

    Raises:
        BundleError: The tokenizer, the start token or the start state does not fit the model.
    """

    instead = "share it between threads, or load the bundle again in another process"

    def __init__(self, bundle: Bundle, engine: Engine, tokenizer: Tokenizer | None = None) -> None:
        self.bundle = bundle
        self.engine = engine
        self.tokenizer = tokenizer or load_tokenizer(bundle)
        self.vocab_size = bundle.vocab_size
        self.taught: Values | None = bundle.start_state()
        """What the bundle taught: the state that streams begin with; ``None`` for zeros."""
        defaults = bundle.generation_defaults()
        self._defaults = {
            name: value
            for name, value in defaults.items()
            if name in _OPTIONS and value is not None
        }
        start = defaults.get("bos_token_id", 0)
        if type(start) is not int or not 0 <= start < self.vocab_size:
            raise BundleError(f"{bundle.path}: bos_token_id is {start!r}, which is no token")
        self.start_token: int = start
        self._spares: deque[EngineState] = deque(maxlen=2)
        self.on_finish: Callable[[GenerationStats], object] | None = None
        """Called with the figures of each generation at its end, for metrics."""

    @property
    def identity(self) -> dict[str, Any]:
        """What tells the model from others: hashes of weights and tokenizer, and the precision."""
        names = ("weights_sha256", "tokenizer_sha256", "precision")
        return {name: self.bundle.manifest.get(name) for name in names}

    def sampling(self, params: SamplingParams | None = None, **changes: Any) -> SamplingParams:
        """The bundle's default sampling, or ``params``, with some fields changed.

        Raises:
            UsageError: A field is unknown or its value can never work.
        """
        if params is not None and not isinstance(params, SamplingParams):
            raise UsageError(
                f"params is {params!r}; give SamplingParams, or options by name; session.feed() "
                "reads a text"
            )
        base = SamplingParams(**self._defaults) if params is None else params
        if unknown := sorted(set(changes) - _OPTIONS):
            raise UsageError(
                f"{', '.join(unknown)}: no such sampling option; there are "
                f"{', '.join(sorted(_OPTIONS))}"
            )
        return dataclasses.replace(base, **changes)

    def start_state(self, taught: bool = True) -> EngineState:
        """Return the state of a new stream.

        Args:
            taught: Begin with what the bundle taught, if it taught anything; otherwise, with zeros.
        """
        state = self.engine.zero_state()
        if taught and self.taught is not None:
            state.write(self.taught)
        return state

    @functools.cached_property
    def graph_generator(self) -> TokenGenerator:
        """The bundle's generating graph, loaded on first use.

        Raises:
            BundleError: The bundle has none.
            UsageError: The engine cannot run one.
        """
        generator = self.engine.generator()
        if generator is None:
            raise UsageError(
                "generating in the graph needs ONNX Runtime on the processor, and this model runs "
                f"on {self.engine.provider}; load it with provider='cpu', or step it"
            )
        return generator

    def spare_state(self) -> EngineState:
        """A state of one row that holds anything, for a copy that is soon needed."""
        try:
            return self._spares.pop()
        except IndexError:
            return self.engine.zero_state()

    def give_back(self, state: EngineState) -> None:
        """Keep a state of one row that nobody needs any more, for :meth:`spare_state`."""
        self._spares.append(state)

    @functools.cached_property
    def drafter(self) -> Drafter | None:
        """What draws tokens ahead of their readers, if the engine can."""
        try:
            generator = self.engine.generator()
        except BundleError:  # it could, with a graph that the bundle lacks
            return None
        return generator if isinstance(generator, Drafter) else None

    def report(self, stats: GenerationStats) -> None:
        """Log the figures of a generation that has ended, and pass them to :attr:`on_finish`."""
        log.debug("generated %d tokens in %.3f s", stats.tokens, stats.seconds)
        if self.on_finish is not None:
            self.on_finish(stats)

    def close(self) -> None:
        """Release the engine's graphs; the next call reloads them."""
        self._spares.clear()
        for generating in ("graph_generator", "drafter"):
            self.__dict__.pop(generating, None)
        self.engine.close()


def load_tokenizer(bundle: Bundle) -> Tokenizer:
    """Load a bundle's tokenizer.

    Raises:
        BundleError: It cannot be read, or does not fit the model.
    """
    tokenizer = Tokenizer.load(bundle.file("tokenizer.json"))
    if tokenizer.vocab_size != bundle.vocab_size:
        raise BundleError(
            f"{bundle.path}: the tokenizer has {tokenizer.vocab_size} tokens and the "
            f"model {bundle.vocab_size}; export the bundle again"
        )
    return tokenizer

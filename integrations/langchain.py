"""A bundle as a language model of LangChain: ``Rillet(path="my-model").invoke("Dear ")``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models.llms import LLM
from langchain_core.outputs import GenerationChunk
from pydantic import ConfigDict, PrivateAttr

from ..runtime import Model, TextStream, load

__all__ = ["Rillet"]

_SAMPLING = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "max_new_tokens",
    "seed",
)


class Rillet(LLM):
    """A bundle, loaded once and shared by all calls; each call is a stream of its own.

    The constructor and each call take every sampling option of
    :class:`rillet.runtime.SamplingParams` as a keyword, and refuse any other; those that are left
    out are the bundle's own.
    """

    # Sampling options without a field of their own; pydantic would drop them, and typos with them.
    model_config = ConfigDict(extra="allow")

    path: str
    revision: str | None = None
    provider: str = "auto"
    threads: int = 1
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    max_new_tokens: int | None = None
    seed: int | None = None
    _model: Model = PrivateAttr()

    def model_post_init(self, context: Any) -> None:
        """Load the bundle, and check the options."""
        provider: Any = self.provider
        self._model = load(self.path, provider, self.threads, revision=self.revision)
        self._model.sampling(**self._sampling())

    @property
    def _llm_type(self) -> str:
        return "rillet"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """What decides the text, and so what a cache is keyed by."""
        return {**self._model.identity, **self._sampling()}

    def _sampling(self) -> dict[str, Any]:
        chosen = {name: getattr(self, name) for name in _SAMPLING}
        chosen |= self.model_extra or {}
        return {name: value for name, value in chosen.items() if value is not None}

    def _pieces(self, prompt: str, stop: list[str] | None, options: dict[str, Any]) -> TextStream:
        sampling = {**self._sampling(), **options}
        if stop:
            sampling["stop"] = tuple(stop)
        return self._model.stream(prompt, **sampling)

    def _call(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> str:
        return "".join(self._pieces(prompt, stop, kwargs))

    def _stream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[GenerationChunk]:
        for text in self._pieces(prompt, stop, kwargs):
            chunk = GenerationChunk(text=text)
            if run_manager is not None:
                run_manager.on_llm_new_token(text, chunk=chunk)
            yield chunk

    def get_token_ids(self, text: str) -> list[int]:
        """The tokens of a text, by the bundle's own tokenizer."""
        return self._model.tokenizer.encode(text)

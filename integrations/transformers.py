"""``generate()`` and its streamers as in Hugging Face's transformers, which need not be installed.

Code that starts ``generate`` in a thread and reads a ``TextIteratorStreamer`` works as it is::

    from rillet.integrations.transformers import CausalLM, TextIteratorStreamer

    model = CausalLM.from_pretrained("my-model")
    streamer = TextIteratorStreamer(model.tokenizer, skip_prompt=True)
    inputs = model.tokenizer("Dear ")
    Thread(target=model.generate, kwargs={**inputs, "streamer": streamer}).start()
    for text in streamer:
        print(text, end="")
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from queue import Queue
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..runtime import Model, UsageError, load

__all__ = ["CausalLM", "Streamer", "TextIteratorStreamer", "TextTokenizer"]

Ids = npt.NDArray[np.int64]

_IGNORED = ("attention_mask", "token_type_ids", "pad_token_id", "use_cache")
"""Arguments that callers pass out of habit: a stream has no padding, and nothing to cache."""


class Streamer(Protocol):
    """What takes tokens as they are generated: every streamer of transformers does."""

    def put(self, value: Any) -> None:
        """Take the prompt ``[1, T]``, and then each token ``[1]``."""

    def end(self) -> None:
        """No more tokens will come."""


class TextTokenizer:
    """A bundle's tokenizer, called as transformers' are; ``AutoTokenizer``'s work as well.

    Args:
        model: The bundle's model.
    """

    def __init__(self, model: Model) -> None:
        self.model = model

    def __call__(
        self,
        text: str | Sequence[str],
        *,
        return_tensors: str | None = None,
        add_special_tokens: bool = True,
        padding: bool = False,
    ) -> dict[str, Ids]:
        """Encode a text, or a list of one: ``{"input_ids": [1, T]}``.

        The options are taken since programs give them: arrays are NumPy's, whatever
        ``return_tensors`` names, there are no special tokens, and one text needs no padding.

        Raises:
            UsageError: It is something else.
        """
        is_list = isinstance(text, list | tuple) and len(text) == 1
        one = text[0] if is_list else text
        if not isinstance(one, str):
            raise UsageError(f"the tokenizer got {text!r}; give it one text, for one stream")
        return {"input_ids": np.array([self.model.tokenizer.encode(one)], np.int64)}

    def decode(
        self,
        tokens: Any,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
    ) -> str:
        """The text of tokens; there are no special ones, and its spaces are the model's."""
        push = self.model.tokenizer.decoder().push
        return "".join(push(int(token)) for token in np.asarray(tokens).reshape(-1))


class CausalLM:
    """A bundle with transformers' ``generate``.

    Args:
        model: The bundle's model.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.tokenizer = TextTokenizer(model)

    @classmethod
    def from_pretrained(
        cls, path: str | Path, revision: str | None = None, **options: Any
    ) -> CausalLM:
        """Load a bundle; the arguments are those of :func:`rillet.runtime.load`."""
        return cls(load(path, revision=revision, **options))

    def generate(
        self,
        inputs: Any = None,
        *,
        input_ids: Any = None,
        streamer: Streamer | None = None,
        do_sample: bool = True,
        **options: Any,
    ) -> Ids:
        """Read tokens and generate more.

        Args:
            inputs: The prompt's tokens, ``[T]`` or ``[1, T]``, in any kind of array.
            input_ids: The same, by its other name.
            streamer: Takes the prompt and each token; it is ended even if generating fails.
            do_sample: False always takes the likeliest token.
            **options: Fields of :class:`rillet.runtime.SamplingParams`, named as in transformers.

        Returns:
            Prompt and generated tokens, ``[1, T + n]``.

        Raises:
            UsageError: There is more than one prompt, or an option is unknown or invalid.
        """
        try:
            ids = _one_prompt(inputs if input_ids is None else input_ids)
            options = {name: value for name, value in options.items() if name not in _IGNORED}
            if not do_sample:
                options["temperature"] = 0
            made = list(ids)
            with self.model.session() as session:
                session.feed_tokens(made)
                tokens = session.tokens(**options)
                if streamer is not None:
                    streamer.put(ids[None])
                for token in tokens:
                    made.append(token.token)
                    if streamer is not None:
                        streamer.put(np.array([token.token]))
        finally:
            if streamer is not None:
                streamer.end()
        return np.array([made], np.int64)


def _one_prompt(inputs: Any) -> Ids:
    ids: npt.NDArray[Any] = np.asarray([] if inputs is None else inputs)
    if ids.ndim == 2 and len(ids) != 1:
        raise UsageError(
            f"generate got {len(ids)} prompts and takes one; use model.batch() for more"
        )
    if ids.ndim not in (1, 2) or (ids.size and ids.dtype.kind not in "iu"):
        raise UsageError(
            f"generate got an array of {ids.dtype} and shape {ids.shape}; give the prompt's "
            "tokens, whole numbers [T] or [1, T]"
        )
    return ids.reshape(-1).astype(np.int64)


class TextIteratorStreamer:
    """Iterates over text while another thread generates it, as transformers' class does.

    Each character comes as soon as its token has: transformers' waits for the end of the word.

    Args:
        tokenizer: The model's tokenizer.
        skip_prompt: Leave out the prompt's text.
        timeout: Seconds to wait for text, after which ``queue.Empty`` is raised.
    """

    def __init__(
        self, tokenizer: TextTokenizer, skip_prompt: bool = False, timeout: float | None = None
    ) -> None:
        self.timeout = timeout
        self._decoder = tokenizer.model.tokenizer.decoder()
        self._skip = skip_prompt
        self._texts: Queue[str | None] = Queue()

    def put(self, value: Any) -> None:
        """Take tokens; the first call's are the prompt."""
        tokens = np.asarray(value).reshape(-1)
        if not self._skip and (text := "".join(self._decoder.push(int(it)) for it in tokens)):
            self._texts.put(text)
        self._skip = False

    def end(self) -> None:
        """End the iteration."""
        self._texts.put(None)

    def __iter__(self) -> TextIteratorStreamer:
        return self

    def __next__(self) -> str:
        text = self._texts.get(timeout=self.timeout)
        if text is None:
            raise StopIteration
        return text

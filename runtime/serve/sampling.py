"""From the fields of a request to sampling parameters."""

from __future__ import annotations

from typing import Any

from ..loaded import LoadedModel
from ..sampling.params import SamplingParams
from .bodies import Completion, StreamCompletion
from .errors import RequestError
from .limits import Limits

__all__ = ["sampling_of"]

_SAME = (
    *("temperature", "top_p", "frequency_penalty", "presence_penalty", "seed", "stop", "top_k"),
    *("min_p", "typical_p", "repetition_penalty", "bad_words", "choices", "regex", "grammar"),
)
"""Fields with the name that the library gives them."""

_DEFAULT_TOKENS = 16
"""OpenAI's."""


def sampling_of(
    model: LoadedModel, body: Completion | StreamCompletion, limits: Limits
) -> SamplingParams:
    """How a request wants its text written; what it leaves open is as the bundle says.

    Args:
        model: The model.
        body: The request.
        limits: What is taken on at most.

    Raises:
        RequestError: A field asks for what this server cannot do.
        UsageError: A value can never work.
    """
    _refuse_unknown(body)
    changes: dict[str, Any] = {
        name: value for name in _SAME if (value := getattr(body, name)) is not None
    }
    count = _DEFAULT_TOKENS if body.max_tokens is None else body.max_tokens
    if count > limits.max_tokens:
        raise RequestError(
            f"max_tokens is {count:,}; this server writes at most {limits.max_tokens:,} at a time",
            param="max_tokens",
        )
    if body.logit_bias:
        changes["logit_bias"] = {_token(name): bias for name, bias in body.logit_bias.items()}
    top = 0 if body.logprobs is None else min(body.logprobs, model.vocab_size)
    return model.sampling(**changes, max_new_tokens=count, top_logprobs=top)


def _refuse_unknown(body: Completion | StreamCompletion) -> None:
    if body.suffix:
        raise RequestError(
            "suffix is set, and the model writes forward only; leave suffix out", param="suffix"
        )
    if body.response_format is not None and body.response_format.get("type") != "text":
        raise RequestError(
            f"response_format is {str(body.response_format.get('type'))[:40]!r}, which this server "
            "does not know; describe the text with regex or grammar instead",
            param="response_format",
        )


def _token(name: str) -> int:
    if not (name.isascii() and name.isdecimal() and len(name) < 10):
        raise RequestError(
            f'logit_bias names the token {name[:40]!r}; give a token\'s number, such as "50"',
            param="logit_bias",
        )
    return int(name)

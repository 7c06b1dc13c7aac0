"""From the fields of a request to sampling parameters."""

from __future__ import annotations

import json
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
    *("json_schema", "epsilon_cutoff", "eta_cutoff", "penalty_window", "no_repeat_ngram_size"),
    *("min_new_tokens", "stop_token_ids", "include_stop"),
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
    if (schema := _schema(body.response_format)) is not None:
        if body.json_schema is not None:
            raise RequestError(
                "response_format and json_schema each say what may be written; give only one of "
                "them",
                param="json_schema",
            )
        changes["json_schema"] = schema
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


def _schema(wanted: dict[str, Any] | None) -> dict[str, Any] | None:
    """The JSON schema that OpenAI's ``response_format`` stands for; ``None`` for any text."""
    kind = None if wanted is None else wanted.get("type")
    if wanted is None or kind == "text":
        return None
    if kind == "json_object":
        return {"type": "object"}
    described = wanted.get("json_schema")
    schema = described.get("schema") if isinstance(described, dict) else None
    if kind == "json_schema" and isinstance(schema, dict):
        return schema
    raise RequestError(
        f"response_format is {json.dumps(wanted)[:80]}; give "
        '{"type": "json_schema", "json_schema": {"schema": …}}, or type "json_object" or "text"',
        param="response_format",
    )


def _token(name: str) -> int:
    if not (name.isascii() and name.isdecimal() and len(name) < 10):
        raise RequestError(
            f'logit_bias names the token {name[:40]!r}; give a token\'s number, such as "50"',
            param="logit_bias",
        )
    return int(name)

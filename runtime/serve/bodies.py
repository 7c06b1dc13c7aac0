"""The bodies of requests, named as OpenAI names them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Completion", "NewStream", "StreamCompletion", "StreamOptions", "Text"]

_Text = Annotated[str, Field(max_length=1 << 20)]
_Token = Annotated[int, Field(ge=0, lt=1 << 31)]
_Stop = Annotated[str, Field(min_length=1, max_length=256)]

# Whoever gets a field of several types wrong is told its description, after "give".
_STOP = "a text of 1 to 256 characters, or a list of up to 16 of them"
_STREAM_PROMPT = "a text of up to 1,048,576 characters, or a list of tokens: whole numbers from 0"
_PROMPT = (
    "a text of up to 1,048,576 characters, a list of such texts, a list of tokens (whole numbers "
    "from 0), or a list of such lists"
)


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class StreamOptions(_Body):
    """What a streamed answer holds besides text."""

    include_usage: bool = False


class _Writing(_Body):
    """How to write: OpenAI's fields, and those of the library that OpenAI lacks."""

    max_tokens: Annotated[int, Field(ge=0)] | None = None
    temperature: Annotated[float, Field(ge=0)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    seed: Annotated[int, Field(ge=0, lt=1 << 128)] | None = None
    stop: _Stop | Annotated[list[_Stop], Field(max_length=16)] | None = Field(
        None, description=_STOP
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    echo: bool | None = None
    response_format: dict[str, Any] | None = None
    suffix: str | None = None
    user: str | None = None
    top_k: Annotated[int, Field(ge=0, lt=1 << 31)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    typical_p: Annotated[float, Field(gt=0, le=1)] | None = None
    repetition_penalty: float | None = None
    bad_words: Annotated[list[str], Field(max_length=64)] | None = None
    choices: Annotated[list[str], Field(max_length=64)] | None = None
    regex: Annotated[str, Field(min_length=1, max_length=4_096)] | None = None
    grammar: Annotated[str, Field(min_length=1, max_length=16_384)] | None = None
    json_schema: dict[str, Any] | None = None
    epsilon_cutoff: Annotated[float, Field(ge=0, lt=1)] | None = None
    eta_cutoff: Annotated[float, Field(ge=0, lt=1)] | None = None
    penalty_window: Annotated[int, Field(ge=0, lt=1 << 31)] | None = None
    no_repeat_ngram_size: Annotated[int, Field(ge=0, lt=1 << 31)] | None = None
    min_new_tokens: Annotated[int, Field(ge=0, lt=1 << 31)] | None = None
    stop_token_ids: Annotated[list[_Token], Field(max_length=64)] | None = None
    include_stop: bool | None = None


class Completion(_Writing):
    """``POST /v1/completions``."""

    model: str | None = None
    prompt: _Text | list[_Text] | list[_Token] | list[list[_Token]] | None = Field(
        "", description=_PROMPT
    )
    n: Annotated[int, Field(ge=1)] | None = None
    best_of: Annotated[int, Field(ge=1)] | None = None


class StreamCompletion(_Writing):
    """``POST /v1/streams/{id}/completions``: from where the stream stands.

    Without ``advance``, a twin reads and writes, and the stream stays where it is.
    """

    advance: bool = True
    prompt: _Text | list[_Token] | None = Field("", description=_STREAM_PROMPT)


class NewStream(_Body):
    """``POST /v1/streams``."""

    model: str | None = None
    learn: Literal["read", "all", "none"] = "read"
    memory: bool = True
    taught: bool = True


class Text(_Body):
    """A text to read."""

    text: _Text

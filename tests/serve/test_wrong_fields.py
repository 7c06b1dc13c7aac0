"""What a client is told of a wrong field: its own name for it, and what it may be."""

from __future__ import annotations

from typing import Any

import pytest

from rillet.runtime import Model, load
from support.server import NANO, Server


@pytest.mark.parametrize("kind", ["Completion", "StreamCompletion"])
def test_a_field_is_called_as_the_client_calls_it(server: Server, kind: str) -> None:
    path = "/v1/completions"
    if kind == "StreamCompletion":
        path = f"/v1/streams/{server.post('/v1/streams', {}).json['id']}/completions"
    schemas = server.ask("GET", "/openapi.json").json["components"]["schemas"]
    for field in schemas[kind]["properties"]:
        wrong = 5 if field in ("response_format", "json_schema", "logit_bias") else {"a": [1, None]}
        error = server.post(path, {field: wrong}).json["error"]
        assert error["param"] == (f"{field}.a" if field == "stream_options" else field), error
        assert error["message"].startswith((f"{field} is {wrong}", "the field 'stream_options.a'"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": 5}, "prompt is 5; give a text"),
        (
            {"prompt": ["a", 5]},
            "prompt is ['a', 5]; give a text of up to 1,048",
        ),
        ({"prompt": [[1, -1]]}, "prompt is [[1, -1]]; give"),
        ({"stop": 5}, "stop is 5; give a text of 1 to 256 characters, or a list of up to 16"),
        ({"stop": [""]}, "stop is ['']; give"),
        ({"stop": ["a"] * 17}, "stop is ['a', 'a', "),
        ({"choices": ["a", 5]}, "choices.1 is 5, which it cannot be: Input should be a valid str"),
    ],
)
def test_a_field_of_several_kinds_says_what_it_may_be(
    server: Server, fields: dict[str, Any], message: str
) -> None:
    answer = server.post("/v1/completions", fields)
    assert answer.status == 400
    assert answer.message.startswith(message)


def test_a_missing_field_is_said_to_be_missing(server: Server) -> None:
    path = f"/v1/streams/{server.post('/v1/streams', {}).json['id']}"
    for body in ({"x": 1}, {}):
        error = server.post(f"{path}/feed", body).json["error"]
        assert error["message"].startswith("text is missing")
        assert error["param"] == "text"


def test_an_empty_body_is_refused(server: Server) -> None:
    path = f"/v1/streams/{server.post('/v1/streams', {}).json['id']}"
    for place in ("/v1/completions", "/v1/streams", f"{path}/completions", f"{path}/feed"):
        answer = server.post(place, b"")
        assert answer.status == 400
        assert answer.message.startswith("the body is empty")


def test_a_stream_of_another_model_tells_no_path(server: Server) -> None:
    session = load(NANO.with_name("bible-nano")).session()
    from rillet.runtime.serve.saved_streams import to_bytes

    answer = server.ask("PUT", f"/v1/streams/{'e' * 32}/state", to_bytes(session))
    assert answer.status == 400
    assert "was saved from another model" in answer.message
    assert "that of shakespeare-nano is" in answer.message
    assert "/" not in answer.message


def test_every_seed_of_the_librarys_is_taken(server: Server, shakespeare: Model) -> None:
    path = f"/v1/streams/{server.post('/v1/streams', {}).json['id']}"
    for seed in (2**63, 2**64 + 1, 2**128 - 1):
        session = shakespeare.session()
        session.feed("A")
        text = session.generate(max_new_tokens=16, seed=seed)
        choice = server.post("/v1/completions", {"prompt": "A", "seed": seed}).json["choices"][0]
        assert (choice["text"], choice["seed"]) == (text, seed)
        body = {"prompt": "A", "seed": seed, "advance": False}
        assert server.post(f"{path}/completions", body).json["choices"][0]["text"] == text
    assert server.post("/v1/completions", {"seed": 2**128}).status == 400

"""OpenAI's completions, asked for with OpenAI's own client and with curl."""

from __future__ import annotations

import json
import math
import shutil
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rillet.runtime import Model
from support.server import NANO, Server, serving

openai = pytest.importorskip("openai", reason="the package openai is not installed")

jsonschema = pytest.importorskip("jsonschema", reason="the package jsonschema is not installed")
pytest.importorskip("llguidance", reason="the extra grammar is not installed")

MODEL = "shakespeare-nano"
BIBLE = NANO.parent / "bible-nano"


@pytest.fixture
def client(server: Server) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_the_text_is_the_librarys(client: Any, shakespeare: Model) -> None:
    answer = client.completions.create(
        model=MODEL, prompt="ROMEO:", max_tokens=80, temperature=0.7, seed=5
    )
    expected = shakespeare.generate("ROMEO:", max_new_tokens=80, temperature=0.7, seed=5)
    assert answer.choices[0].text == expected
    assert answer.choices[0].finish_reason == "length"
    assert answer.model == MODEL
    assert answer.object == "text_completion"
    assert answer.usage.prompt_tokens == 6
    assert answer.usage.completion_tokens == 80
    assert answer.usage.total_tokens == 86


def test_a_stream_gives_the_same_text(client: Any, shakespeare: Model) -> None:
    events = list(
        client.completions.create(
            model=MODEL,
            prompt="ROMEO:",
            max_tokens=200,
            seed=5,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(event.choices[0].text for event in events[:-1])
    assert text == shakespeare.generate("ROMEO:", max_new_tokens=200, seed=5)
    assert [event.choices[0].finish_reason for event in events[-2:-1]] == ["length"]
    assert events[-1].choices == []
    assert events[-1].usage.completion_tokens == 200
    assert len({event.id for event in events}) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_prompts_and_choices_have_their_seeds(
    client: Any, shakespeare: Model, stream: bool
) -> None:
    prompts = ["ROMEO:", "JULIET:\n"]
    answer = client.completions.create(
        model=MODEL, prompt=prompts, n=3, max_tokens=40, seed=9, stream=stream
    )
    texts = [""] * 6
    for event in answer if stream else [answer]:
        for choice in event.choices:
            texts[choice.index] += choice.text
    assert texts == [
        shakespeare.generate(prompt, max_new_tokens=40, seed=9 + choice)
        for prompt in prompts
        for choice in range(3)
    ]


def test_a_stop_string_ends_the_text(client: Any, shakespeare: Model) -> None:
    answer = client.completions.create(
        model=MODEL, prompt="ROMEO:\n", max_tokens=400, seed=1, stop=["\n\n", "zzz"]
    )
    expected = shakespeare.generate("ROMEO:\n", max_new_tokens=400, seed=1, stop=["\n\n", "zzz"])
    assert answer.choices[0].text == expected
    assert answer.choices[0].finish_reason == "stop"


def test_a_prompt_may_be_tokens_and_is_echoed(client: Any, shakespeare: Model) -> None:
    tokens = shakespeare.tokenizer.encode("ROMEO:")
    answer = client.completions.create(model=MODEL, prompt=tokens, echo=True, max_tokens=10, seed=2)
    text = shakespeare.generate("ROMEO:", max_new_tokens=10, seed=2)
    assert answer.choices[0].text == "ROMEO:" + text


def test_logprobs_are_the_models_own(client: Any, shakespeare: Model) -> None:
    answer = client.completions.create(
        model=MODEL, prompt="ROMEO:", logprobs=3, max_tokens=12, seed=4
    )
    session = shakespeare.session()
    session.feed("ROMEO:")
    expected = list(session.tokens(seed=4, max_new_tokens=12, top_logprobs=3))
    logprobs = answer.choices[0].logprobs
    assert logprobs.token_logprobs == [token.logprob for token in expected]
    assert "".join(logprobs.tokens) == answer.choices[0].text
    decode = shakespeare.tokenizer.decode
    assert logprobs.top_logprobs == [
        {decode([number]): logprob for number, logprob in token.top} for token in expected
    ]
    assert logprobs.text_offset == list(range(12))


def test_a_prompt_is_scored_by_its_echo(client: Any, shakespeare: Model) -> None:
    """What evaluation programs do: nothing is written, and the prompt's tokens are weighed."""
    text = "What light through yonder window breaks?"
    answer = client.completions.create(
        model=MODEL, prompt=text, echo=True, logprobs=1, max_tokens=0
    )
    logprobs = answer.choices[0].logprobs
    assert answer.choices[0].text == text
    assert logprobs.token_logprobs[0] is None
    score = shakespeare.score(text, per_token=True)
    assert score.token_logprobs is not None
    assert np.allclose(logprobs.token_logprobs[1:], score.token_logprobs, atol=1e-6)


def test_a_bias_forbids_a_token(client: Any, shakespeare: Model) -> None:
    space = shakespeare.tokenizer.encode(" ")[0]
    answer = client.completions.create(
        model=MODEL, prompt="ROMEO:", max_tokens=100, seed=1, logit_bias={str(space): -1e9}
    )
    assert " " not in answer.choices[0].text


def test_the_librarys_other_options_are_known(client: Any, shakespeare: Model) -> None:
    options = {"top_k": 3, "min_p": 0.05, "repetition_penalty": 1.2, "bad_words": ["the"]}
    answer = client.completions.create(
        model=MODEL, prompt="ROMEO:", max_tokens=60, seed=1, extra_body=options
    )
    expected = shakespeare.generate("ROMEO:", max_new_tokens=60, seed=1, **options)
    assert answer.choices[0].text == expected


def test_a_pattern_is_kept_to(client: Any) -> None:
    pytest.importorskip("llguidance", reason="rillet[grammar] is not installed")
    answer = client.completions.create(
        model=MODEL, prompt="Day: ", seed=1, extra_body={"regex": "(Mon|Tues|Sun)day"}
    )
    assert answer.choices[0].text in ("Monday", "Tuesday", "Sunday")
    assert answer.choices[0].finish_reason == "stop"


def test_a_seed_gives_its_text_whatever_else_is_written(server: Server, shakespeare: Model) -> None:
    """Sixty texts at a time, of all lengths and options, that join and leave."""

    def options(seed: int) -> dict[str, Any]:
        kinds: list[dict[str, Any]] = [
            {},
            {"temperature": 0},
            {"stop": ["\n\n"]},
            {"top_p": 0.8},
            {"frequency_penalty": 0.3},
            {"logprobs": 2},
        ]
        return {"max_tokens": 5 + 3 * seed, "seed": seed, **kinds[seed % len(kinds)]}

    def text(seed: int) -> str:
        body = {"prompt": "ROMEO:" * (1 + seed), **options(seed)}
        answer = server.post("/v1/completions", body)
        assert answer.status == 200, answer.body
        return str(answer.json["choices"][0]["text"])

    with ThreadPoolExecutor(60) as threads:
        texts = list(threads.map(text, range(60)))
    for seed, written in enumerate(texts):
        known = {k: v for k, v in options(seed).items() if k not in ("max_tokens", "logprobs")}
        expected = shakespeare.generate("ROMEO:" * (1 + seed), max_new_tokens=5 + 3 * seed, **known)
        assert written == expected, seed


def test_a_client_that_leaves_frees_its_row(server: Server) -> None:
    body = json.dumps({"prompt": "ROMEO:", "max_tokens": 4_096, "stream": True}).encode()
    head = (
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(head + body)
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
    server.wait_for("rillet_rows", 0)


def test_the_likeliest_texts_come_first(client: Any, shakespeare: Model) -> None:
    how = {"model": MODEL, "prompt": ["ROMEO:", "JULIET:"], "max_tokens": 30, "seed": 5}
    every = client.completions.create(**how, n=6, logprobs=0).choices
    means = [sum(choice.logprobs.token_logprobs) / len(choice.logprobs.tokens) for choice in every]
    expected = []
    for first in (0, 6):
        ranked = sorted(range(first, first + 6), key=means.__getitem__, reverse=True)
        expected += [every[place].text for place in ranked[:2]]
    best = client.completions.create(**how, n=2, best_of=6)
    assert [choice.text for choice in best.choices] == expected
    assert [choice.index for choice in best.choices] == [0, 1, 2, 3]
    assert best.usage.completion_tokens == 2 * 6 * 30
    library = shakespeare.generate("ROMEO:", best_of=6, seed=5, max_new_tokens=30)
    assert best.choices[0].text == library


def test_a_slow_reader_holds_nobody(server: Server) -> None:
    body = json.dumps({"prompt": "ROMEO:", "max_tokens": 4_096, "stream": True}).encode()
    head = (
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_048)
        connection.connect(("127.0.0.1", server.port))
        connection.sendall(head + body)  # and nothing is read
        answer = server.post("/v1/completions", {"prompt": "A", "max_tokens": 300, "seed": 1})
        assert answer.status == 200


def test_models_are_listed(client: Any) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).owned_by == "rillet"
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt-4'"):
        client.completions.create(model="gpt-4", prompt="A")


def test_a_chat_is_refused_with_what_the_model_is(client: Any) -> None:
    with pytest.raises(openai.NotFoundError, match="no chat model") as caught:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Hi"}])
    assert caught.value.code == "not_a_chat_model"


@pytest.mark.parametrize(
    ("body", "words", "param"),
    [
        ({"max_tokens": -1}, "max_tokens is -1", "max_tokens"),
        ({"max_tokens": 10**6}, "max_tokens is 1,000,000", "max_tokens"),
        ({"temperature": "hot"}, "temperature is 'hot'", "temperature"),
        ({"best_of": 4, "stream": True}, "best_of is 4 and n 1", "best_of"),
        ({"best_of": 1, "n": 2}, "best_of is 1 and n 2", "best_of"),
        ({"best_of": 65}, "asks for 65 texts", "n"),
        ({"n": 1_000}, "asks for 1000 texts", "n"),
        ({"suffix": "end"}, "writes forward only", "suffix"),
        ({"tempersture": 1}, "'tempersture' is unknown", "tempersture"),
        ({"response_format": {"type": "json_schema"}}, '"json_schema"', "response_format"),
        ({"response_format": {"type": "yaml"}}, '"yaml"', "response_format"),
        ({"response_format": {"type": "json_object"}}, "this model lacks characters", None),
        ({"json_schema": {"type": "nothing"}}, "nothing", None),
        (
            {"json_schema": {}, "response_format": {"type": "json_object"}},
            "give only one of them",
            "json_schema",
        ),
        ({"prompt": [99_999]}, "99999", None),
        ({"prompt": []}, "asks for 0 texts", "n"),
        ({"stop": [""]}, "stop", "stop"),
        ({"logit_bias": {"a": 1}}, "logit_bias names the token 'a'", "logit_bias"),
        ({"regex": "("}, "", None),
        ({"grammar": "start:: ("}, "", None),
    ],
)
def test_what_can_never_work_is_refused(
    server: Server, body: dict[str, Any], words: str, param: str | None
) -> None:
    answer = server.post("/v1/completions", body)
    if body == {"prompt": []}:
        assert answer.status == 200  # no tokens: the empty prompt
        return
    assert answer.status == 400, answer.body
    assert words in answer.message
    error = answer.json["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    if param is not None:
        assert str(error["param"]).startswith(param)


def test_a_schema_is_kept_to(tmp_path: Path) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer"}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    described = {"type": "json_schema", "json_schema": {"name": "person", "schema": schema}}
    with (
        serving(tmp_path / "log", BIBLE) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client,
    ):
        for body in ({"response_format": described}, {"json_schema": schema}):
            answer = client.completions.create(
                model="bible-nano", prompt="Abraham: ", max_tokens=60, seed=3, extra_body=body
            )
            person = json.loads(answer.choices[0].text)
            jsonschema.validate(person, schema)
            assert answer.choices[0].finish_reason == "stop"


def test_what_is_no_json_is_refused(server: Server) -> None:
    assert server.post("/v1/completions", b"{").status == 400
    assert server.post("/v1/completions", b'{"temperature": NaN}').status == 400
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = server.post("/v1/completions", b"{}", headers=form)
    assert answer.status == 415
    assert "Content-Type: application/json" in answer.message
    assert server.ask("GET", "/v1/nowhere").status == 404
    assert server.ask("DELETE", "/v1/models").status == 405
    assert server.ask("DELETE", "/v1/models").json["error"]["code"] is None


def test_unknown_characters_are_told_of(server: Server) -> None:
    answer = server.post("/v1/completions", {"prompt": "ROMEO: ☂", "max_tokens": 3})
    assert answer.status == 200
    assert "☂" in answer.json["warnings"][0]


def test_curl_as_documented(server: Server) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    data = '{"prompt": "ROMEO:", "max_tokens": 40, "seed": 1, "stream": true}'
    result = subprocess.run(
        [
            *("curl", "--silent", "--no-buffer", f"{server.url}/v1/completions"),
            *("--header", "Content-Type: application/json", "--data", data),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line for line in result.stdout.split("\n") if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    texts = [json.loads(line[6:])["choices"][0]["text"] for line in lines[:-1]]
    assert len("".join(texts)) == 40


def test_what_runs_is_said(server: Server) -> None:
    props = server.ask("GET", "/props").json
    assert props["model"] == MODEL
    assert props["is_chat_model"] is False
    assert server.ask("GET", "/health").json == {"status": "ok"}
    page = server.ask("GET", "/metrics")
    assert page.headers["content-type"].startswith("text/plain")
    assert server.figure("rillet_tokens_written_total") > 0
    assert not math.isnan(server.figure("rillet_first_token_seconds_sum"))

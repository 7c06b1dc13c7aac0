"""A request that is refused changes nothing: the stream is where it was, to the byte."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from rillet.runtime import Model
from support.server import NANO, Server, serving

REFUSED: list[dict[str, Any]] = [
    {"regex": "("},
    {"stop_token_ids": [1000]},
    {"logit_bias": {"1000": 1}},
    {"choices": ["€"]},
    {"bad_words": [""]},
    {"json_schema": {"type": "boolean"}, "max_tokens": 1},
    {"suffix": "end"},
    {"unknown": 1},
]
"""What is refused at different moments: some before the prompt is read, some once it was."""


@pytest.fixture(scope="module")
def keeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that saves its streams."""
    folder = tmp_path_factory.mktemp("keeper")
    with serving(folder / "log", NANO, "--sessions", folder / "kept") as server:
        yield server


@pytest.fixture(params=["server", "keeper"])
def stream(request: pytest.FixtureRequest) -> tuple[Server, str]:
    """A server, and a stream of it that has read and written."""
    server: Server = request.getfixturevalue(request.param)
    path = f"/v1/streams/{server.post('/v1/streams', {}).json['id']}"
    server.post(f"{path}/completions", {"prompt": "ROMEO:", "max_tokens": 7, "seed": 1})
    return server, path


@pytest.mark.parametrize("echo", [{}, {"echo": True, "logprobs": 1}], ids=["", "echo"])
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_a_refused_completion_leaves_the_stream(
    stream: tuple[Server, str], streamed: bool, echo: dict[str, Any]
) -> None:
    server, path = stream
    before = server.ask("GET", f"{path}/state").body
    for fields in REFUSED:
        for prompt in ("abc", "abc" * 100):
            body = {"prompt": prompt, "stream": streamed, **echo, **fields}
            answer = server.post(f"{path}/completions", body)
            assert answer.status == 400, (fields, answer.body)
            assert server.ask("GET", f"{path}/state").body == before, fields


def test_a_text_that_cannot_go_on_leaves_the_stream(stream: tuple[Server, str]) -> None:
    """The options contradict each other, which shows at the second token."""
    server, path = stream
    before = server.ask("GET", f"{path}/state").body
    for streamed in (False, True):
        body = {"prompt": "abc", "regex": "[a-e]x{3}", "bad_words": ["x"], "stream": streamed}
        answer = server.post(f"{path}/completions", body)
        assert answer.status == 400, answer.body
        assert server.ask("GET", f"{path}/state").body == before


def test_reading_that_is_given_up_leaves_the_stream(shakespeare: Model) -> None:
    from rillet.runtime.serve.reading import read, read_with_predictions

    session, tokens, counts = shakespeare.session(), [1] * 1_000, list[int]()
    for work in (
        read(session, tokens, counts.append),
        read_with_predictions(session, tokens, 1, counts.append),
    ):
        next(work)
        next(work)
        assert session.position > 0
        work.close()
        assert session.position == 0
    assert sum(counts) < 2_000

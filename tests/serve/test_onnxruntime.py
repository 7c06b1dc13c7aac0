"""Models that step in a batch on ONNX Runtime, two of them in one server."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rillet.runtime import load
from support.server import NANO, Server, serving

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


@pytest.fixture(scope="module")
def batched(tmp_path_factory: pytest.TempPathFactory, small_bundle: Path) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("batched")
    (folder / "small").symlink_to(small_bundle)
    with serving(folder / "log", NANO, small_bundle, "--provider", "cpu") as server:
        yield server


def test_texts_of_a_batch_are_the_librarys(batched: Server, small_bundle: Path) -> None:
    models = [load(NANO, "cpu"), load(small_bundle, "cpu")]
    names = [NANO.name, small_bundle.resolve().name]
    assert [entry["id"] for entry in batched.ask("GET", "/v1/models").json["data"]] == names

    def text(number: int) -> str:
        body = {"model": names[number % 2], "prompt": "The ", "max_tokens": 10 + number}
        answer = batched.post("/v1/completions", {**body, "seed": number})
        assert answer.status == 200, answer.body
        return str(answer.json["choices"][0]["text"])

    with ThreadPoolExecutor(12) as threads:
        texts = list(threads.map(text, range(24)))
    for number, written in enumerate(texts):
        expected = models[number % 2].generate("The ", max_new_tokens=10 + number, seed=number)
        assert written == expected


def test_a_text_that_cannot_go_on_ends_alone(batched: Server) -> None:
    every = {str(token): -1e30 for token in range(65)}
    bad = {"prompt": "A", "bad_words": [chr(code) for code in range(32, 95)], "seed": 1}
    bad |= {"max_tokens": 50, "logit_bias": every}

    def ask(number: int) -> int:
        body = bad if number == 3 else {"prompt": "The ", "max_tokens": 200, "seed": number}
        return batched.post("/v1/completions", body).status

    with ThreadPoolExecutor(6) as threads:
        statuses = list(threads.map(ask, range(6)))
    assert statuses[:3] + statuses[4:] == [200] * 5
    assert statuses[3] in (200, 400)


def test_a_stream_steps_in_the_batch_too(batched: Server) -> None:
    session = load(NANO, "cpu").session()
    path = f"/v1/streams/{batched.post('/v1/streams', {}).json['id']}"
    for seed in range(3):
        body = {"prompt": "KING:\n", "max_tokens": 30, "seed": seed, "stop": ["e"]}
        text = batched.post(f"{path}/completions", body).json["choices"][0]["text"]
        session.feed("KING:\n")
        assert text == session.generate(max_new_tokens=30, seed=seed, stop=["e"])
    assert batched.ask("GET", path).json["position"] == session.position

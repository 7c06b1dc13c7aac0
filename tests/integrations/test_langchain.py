"""A bundle as a language model of LangChain."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langchain_core", reason="langchain-core is not installed")

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import PromptTemplate

import rillet.runtime
from rillet.integrations.langchain import Rillet

NANO = Path(__file__).parents[2] / "models" / "shakespeare-nano"


@pytest.fixture(scope="module")
def model() -> Rillet:
    return Rillet(path=str(NANO), max_new_tokens=40, seed=3)


@pytest.fixture(scope="module")
def expected() -> str:
    return rillet.runtime.load(NANO).generate("ROMEO:", max_new_tokens=40, seed=3)


def test_invoke_stream_and_batch_give_the_models_text(model: Rillet, expected: str) -> None:
    assert model.invoke("ROMEO:") == expected
    pieces = list(model.stream("ROMEO:"))
    assert len(pieces) > 10
    assert "".join(pieces) == expected
    assert model.batch(["ROMEO:", "JULIET:"])[0] == expected


def test_it_is_part_of_a_chain(model: Rillet, expected: str) -> None:
    chain = PromptTemplate.from_template("{name}:") | model | StrOutputParser()
    assert chain.invoke({"name": "ROMEO"}) == expected

    async def read() -> str:
        return "".join([piece async for piece in chain.astream({"name": "ROMEO"})])

    assert asyncio.run(read()) == expected


def test_stop_and_options_of_a_call(model: Rillet, expected: str) -> None:
    word = expected.split()[2]
    assert model.invoke("ROMEO:", stop=[word]) == expected.partition(word)[0]
    assert model.invoke("ROMEO:", seed=4) != expected
    assert len(model.bind(max_new_tokens=5).invoke("ROMEO:")) == 5


def test_callbacks_get_the_pieces(model: Rillet, expected: str) -> None:
    class Collects(BaseCallbackHandler):
        def __init__(self) -> None:
            self.pieces: list[str] = []

        def on_llm_new_token(self, token: str, **_: Any) -> None:
            self.pieces.append(token)

    collects = Collects()
    list(model.stream("ROMEO:", config={"callbacks": [collects]}))
    assert "".join(collects.pieces) == expected


def test_tokens_and_identity_are_the_bundles(model: Rillet) -> None:
    assert model.get_num_tokens("ROMEO:") == 6
    assert model.dict()["seed"] == 3
    other = Rillet(path=str(NANO.with_name("bible-nano")), max_new_tokens=40, seed=3)
    assert other.dict()["weights_sha256"] != model.dict()["weights_sha256"]


def test_the_constructor_takes_every_option(model: Rillet, expected: str) -> None:
    fields = {"path": str(NANO), "max_new_tokens": 40, "seed": 3}
    word = expected.split()[2]
    stops = Rillet(**fields, stop=[word])
    assert stops.invoke("ROMEO:") == expected.partition(word)[0]
    assert stops.dict()["stop"] == [word]  # a cache must tell it from the model without
    other = expected.split()[1]
    assert stops.invoke("ROMEO:", stop=[other]) == expected.partition(other)[0]
    assert Rillet(**fields, bad_words=["e"]).invoke("ROMEO:").count("e") == 0


def test_the_constructor_patterns(expected: str) -> None:
    pytest.importorskip("llguidance", reason="llguidance is not installed")
    text = Rillet(path=str(NANO), max_new_tokens=20, seed=3, regex="[a-z]{3}").invoke("ROMEO:")
    assert len(text) == 3


def test_the_constructor_refuses_what_it_does_not_know() -> None:
    for options, message in (
        ({"temprature": 0.0}, "temprature: no such sampling option"),
        ({"top_p": 2.0}, "top_p is 2"),
    ):
        with pytest.raises(ValueError, match=message):
            Rillet(path=str(NANO), **options)


def test_a_wrong_option_is_said(model: Rillet) -> None:
    with pytest.raises(rillet.runtime.UsageError, match="top_p is 2"):
        model.invoke("ROMEO:", top_p=2.0)
    with pytest.raises(rillet.runtime.BundleError, match="is not a folder"):
        Rillet(path="no-such-model")

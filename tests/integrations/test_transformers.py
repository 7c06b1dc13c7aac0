"""`generate` and streamers, as code that was written for transformers uses them."""

from __future__ import annotations

from pathlib import Path
from queue import Empty
from threading import Thread
from typing import Any

import numpy as np
import pytest

from rillet.integrations.transformers import CausalLM, TextIteratorStreamer
from rillet.runtime import UsageError

MODELS = Path(__file__).parents[2] / "models"
GREEDY = {"do_sample": False, "max_new_tokens": 30}


@pytest.fixture(scope="module", params=["shakespeare-nano", "bible-nano"])
def model(request: pytest.FixtureRequest) -> CausalLM:
    return CausalLM.from_pretrained(MODELS / request.param)


def streamed(model: CausalLM, inputs: Any, streamer: Any) -> str:
    """What the example of transformers' own documentation does."""
    options = dict(inputs, streamer=streamer, **GREEDY)
    thread = Thread(target=model.generate, kwargs=options)
    thread.start()
    text = "".join(streamer)
    thread.join()
    return text


def test_the_streamer_gives_the_text_that_the_model_generates(model: CausalLM) -> None:
    inputs = model.tokenizer("ROMEO:")
    expected = model.model.generate("ROMEO:", temperature=0, max_new_tokens=30)
    without = TextIteratorStreamer(model.tokenizer, skip_prompt=True)
    assert streamed(model, inputs, without) == expected
    assert streamed(model, inputs, TextIteratorStreamer(model.tokenizer)) == "ROMEO:" + expected
    ids = model.generate(**inputs, **GREEDY)
    assert ids.shape == (1, 36)
    assert model.tokenizer.decode(ids[0]) == "ROMEO:" + expected


def test_the_streamer_keeps_a_character_until_it_is_whole(model: CausalLM) -> None:
    if model.model.tokenizer.vocab_size != 256:
        pytest.skip("its tokens are characters")
    streamer = TextIteratorStreamer(model.tokenizer)
    for token in model.tokenizer("é")["input_ids"][0]:
        streamer.put(np.array([token]))
    streamer.end()
    assert list(streamer) == ["é"]


def test_the_tokenizer_takes_what_programs_give_and_no_more(model: CausalLM) -> None:
    ids = model.tokenizer("ROMEO:", return_tensors="pt")["input_ids"]
    assert model.tokenizer.decode(ids[0], skip_special_tokens=True) == "ROMEO:"
    with pytest.raises(TypeError, match="truncation"):
        model.tokenizer("ROMEO:", truncation=True)  # type: ignore[call-arg]


def test_the_streamer_of_transformers_takes_the_tokens(model: CausalLM) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    file = str(model.model.bundle.file("tokenizer.json"))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=file)
    inputs = tokenizer(["ROMEO:"], return_tensors="np")
    expected = model.model.generate("ROMEO:", temperature=0, max_new_tokens=30)
    for skip in (True, False):
        streamer = transformers.TextIteratorStreamer(tokenizer, skip_prompt=skip)
        text = streamed(model, inputs, streamer)
        assert text == ("" if skip else "ROMEO:") + expected
    ours = streamed(model, inputs, TextIteratorStreamer(model.tokenizer))
    assert ours == "ROMEO:" + expected


def test_the_iteration_ends_if_generating_fails(model: CausalLM) -> None:
    streamer = TextIteratorStreamer(model.tokenizer)
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"input_ids": [[1], [2]]}, "generate got 2 prompts and takes one"),
        ({"input_ids": [[1]], "num_beams": 4}, "num_beams: no such sampling option"),
        ({"inputs": np.array([[1.5]])}, r"array of float64 and shape \(1, 1\)"),
        ({"inputs": np.array([[[1]]])}, r"shape \(1, 1, 1\); give the prompt's tokens"),
        ({"inputs": 5}, r"shape \(\)"),
        ({"inputs": "abc"}, "array of <U3"),
    )
    for wrong, message in cases:
        with pytest.raises(UsageError, match=message):
            model.generate(streamer=streamer, **wrong)
        assert list(streamer) == []


def test_the_tokenizer_takes_one_text(model: CausalLM) -> None:
    alone, listed = model.tokenizer("ROMEO:"), model.tokenizer(["ROMEO:"])
    np.testing.assert_array_equal(alone["input_ids"], listed["input_ids"])
    wrongs: tuple[Any, ...] = (["a", "b"], [], 5, b"a")
    for wrong in wrongs:
        with pytest.raises(UsageError, match="give it one text"):
            model.tokenizer(wrong)


def test_waiting_ends_after_the_timeout(model: CausalLM) -> None:
    with pytest.raises(Empty):
        next(TextIteratorStreamer(model.tokenizer, timeout=0.01))

"""The runtime end to end: bundles, sessions, sampling, tokenizers and streaming."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rillet.runtime import (
    EngineError,
    Model,
    Sampler,
    SamplingParams,
    Tokenizer,
    UnknownCharacterWarning,
    UsageError,
    load,
)
from rillet.train import Checkpoint, make_tokenizer


def test_the_same_seed_gives_the_same_text(small_bundle: Path) -> None:
    first, second = load(small_bundle), load(small_bundle)
    one = first.generate("The ", max_new_tokens=80, seed=5)
    assert one == second.generate("The ", max_new_tokens=80, seed=5)
    assert one == "".join(first.stream("The ", max_new_tokens=80, seed=5))
    assert one != first.generate("The ", max_new_tokens=80, seed=6)


def test_greedy_text_equals_pytorchs(small_model: Model, small: Checkpoint) -> None:
    import torch

    prompt = small.tokenizer.encode("The statement ")
    with torch.no_grad():
        logits, state = small.model(torch.tensor([prompt]), small.model.zero_state())
        expected = []
        for _ in range(60):
            expected.append(int(logits[0, -1].argmax()))
            logits, state = small.model(torch.tensor([[expected[-1]]]), state, torch.zeros(1))
    text = small_model.generate("The statement ", max_new_tokens=60, temperature=0)
    assert text == small.tokenizer.decode(expected)


def test_feeding_in_pieces_equals_feeding_at_once(small_model: Model) -> None:
    whole, pieces = small_model.session(), small_model.session()
    whole.feed("The statement is a name")
    for piece in ("T", "he ", "statement", " is a ", "name"):
        pieces.feed(piece)
    assert whole.position == pieces.position == 23
    assert whole.logits is not None
    assert pieces.logits is not None
    np.testing.assert_allclose(whole.logits, pieces.logits, atol=1e-5)


def test_sessions_do_not_share_state(small_model: Model) -> None:
    """Interleaved streams, and streams in eight threads, give what each gives alone."""
    prompts = ["The ", "Some other text ", "a", "import sys", "", "x = 1", "names are ", "In a "]
    alone = [small_model.generate(p, max_new_tokens=40, seed=1) for p in prompts]
    streams = [small_model.stream(p, max_new_tokens=40, seed=1) for p in prompts]
    turns = zip(*streams, strict=True)
    together = ["".join(pieces) for pieces in zip(*turns, strict=True)]
    assert together == alone
    texts: dict[int, str] = {}

    def run(index: int) -> None:
        texts[index] = small_model.generate(prompts[index], max_new_tokens=40, seed=1)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [texts[index] for index in range(len(prompts))] == alone


@pytest.mark.parametrize(
    ("learn", "read", "written"),
    [("read", True, False), ("all", True, True), ("none", False, False)],
)
def test_learn_decides_what_the_memory_stores(
    small_model: Model, learn: str, read: bool, written: bool
) -> None:
    """The memory stores what is read, also what is written, or nothing."""
    session = small_model.session(learn)
    session.feed("The text")
    session.generate(max_new_tokens=5, seed=0)
    keys = session.state["memory_keys"][0]
    # The first entry has the key of the zero state, so it is always empty.
    assert keys[1:8].any(axis=1).all() == read
    assert keys[1:8].any() == read
    assert keys[8:13].any(axis=1).all() == written
    assert keys[8:13].any() == written
    assert not keys[13:].any()


def test_an_empty_prompt_starts_after_a_line_break(small_model: Model) -> None:
    assert small_model.generate("", max_new_tokens=20, seed=3) == small_model.generate(
        "\n", max_new_tokens=20, seed=3
    )


def test_unknown_characters_are_skipped_with_a_warning(small_model: Model) -> None:
    session, plain = small_model.session(), small_model.session()
    with pytest.warns(UnknownCharacterWarning, match="'水'"):
        assert session.feed("The 水name") == 8
    plain.feed("The name")
    np.testing.assert_array_equal(session.logits, plain.logits)


def test_a_failed_step_leaves_the_stream_unchanged(small_model: Model) -> None:
    session = small_model.session()
    session.feed("The statement")
    before, logits = session.state, session.logits
    with pytest.raises(UsageError, match="tokens must lie between"):
        session.feed_tokens([3, small_model.vocab_size])
    # The engine checks its tokens too.
    with pytest.raises(EngineError, match="the stream is where it was"):
        small_model.engine.step(np.asarray([10_000]), session._stream.state)
    for name, value in session.state.items():
        np.testing.assert_array_equal(before[name], value, err_msg=name)
    np.testing.assert_array_equal(logits, session.logits)


def test_a_failed_prefill_leaves_the_stream_unchanged(small_model: Model) -> None:
    """The first chunks of the prompt succeed and change the memory; the last one fails."""
    session = small_model.session()
    session.feed("The statement")
    before = session.state
    tokens = np.zeros((1, 700), np.int64)
    tokens[0, -1] = 10_000
    with pytest.raises(EngineError, match="the stream is where it was"):
        small_model.engine.prefill(tokens, session._stream.state)
    for name, value in session.state.items():
        np.testing.assert_array_equal(before[name], value, err_msg=name)


def test_writing_a_state_replaces_the_streams_own(small_model: Model) -> None:
    first, second = small_model.session(), small_model.session()
    first.feed("The statement")
    second._stream.state.write(first.state)
    for session in (first, second):
        session.feed(" is")
    np.testing.assert_array_equal(first.logits, second.logits)
    with pytest.raises(EngineError, match="'reservoir' must be float32"):
        second._stream.state.write({**first.state, "reservoir": np.zeros((1, 3), np.float32)})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.1}, "temperature is -0.1; it must be 0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": "hot"}, "temperature is 'hot'"),
        ({"top_k": -1}, "top_k is -1"),
        ({"top_k": 1.5}, "top_k is 1.5"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 1.01}, "top_p is 1.01"),
        ({"seed": -1}, "seed is -1"),
        ({"max_new_tokens": -1}, "max_new_tokens is -1"),
        ({"warmth": 1.0}, "warmth: no such sampling option"),
        ({"learn": "some"}, "learn is 'some'"),
    ],
)
def test_invalid_options_are_refused(
    small_model: Model, options: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        small_model.generate("The", **options)  # type: ignore[arg-type]


arbitrary_logits = st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=40)


@given(
    values=arbitrary_logits,
    temperature=st.floats(1e-300, 10),
    top_k=st.integers(0, 50),
    top_p=st.floats(0.001, 1.0),
    seed=st.integers(0, 2**32),
)
def test_sampling_draws_only_kept_tokens(
    values: list[float], temperature: float, top_k: int, top_p: float, seed: int
) -> None:
    logits = np.asarray(values, np.float32)
    sampler = Sampler(SamplingParams(temperature, top_k, top_p, seed))
    kept = sampler.probabilities(logits)
    assert kept.sum() == pytest.approx(1)
    assert kept[logits.argmax()] > 0
    token = sampler.draw(logits)
    assert kept[token] > 0
    if top_k:
        assert (logits > logits[token]).sum() < top_k
    # Nucleus: among the k likeliest, the tokens likelier than this one add up to less than top_p.
    scaled = (logits.astype(np.float64) - logits.max()) / temperature
    among = np.sort(scaled)[::-1][min(top_k, len(values)) - 1] if top_k else -np.inf
    weights = np.where(scaled >= among, np.exp(scaled), 0)
    likelier = weights[scaled > scaled[token]].sum() / weights.sum()
    assert likelier < top_p + 1e-9


def test_sampling_follows_the_probabilities() -> None:
    logits = np.log(np.asarray([0.5, 0.3, 0.15, 0.05], np.float32))
    sampler = Sampler(SamplingParams(temperature=1.0, seed=0))
    counts = np.bincount([sampler.draw(logits) for _ in range(20_000)], minlength=4)
    np.testing.assert_allclose(counts / 20_000, [0.5, 0.3, 0.15, 0.05], atol=0.015)
    sharp = Sampler(SamplingParams(temperature=0.5)).probabilities(logits)
    np.testing.assert_allclose(sharp, np.square([0.5, 0.3, 0.15, 0.05]) / 0.365, rtol=1e-5)
    nucleus = Sampler(SamplingParams(temperature=1.0, top_p=0.7)).probabilities(logits)
    np.testing.assert_allclose(nucleus, [0.625, 0.375, 0, 0], rtol=1e-5)
    few = Sampler(SamplingParams(temperature=1.0, top_k=3)).probabilities(logits)
    np.testing.assert_allclose(few, np.asarray([0.5, 0.3, 0.15, 0]) / 0.95, rtol=1e-5)


def test_logits_that_are_not_finite_are_refused() -> None:
    with pytest.raises(EngineError, match="not finite"):
        Sampler(SamplingParams()).draw(np.asarray([0.0, np.nan], np.float32))


@given(text=st.text(min_size=1, max_size=60))
def test_the_byte_tokenizer_encodes_any_text(text: str) -> None:
    tokenizer = make_tokenizer("any", "byte")
    whole = text.encode("utf-8", "ignore").decode()
    tokens = tokenizer.encode(text)
    assert tokenizer.vocab_size == 256
    assert tokens == list(_tokens_of_bytes(tokenizer, whole.encode()))
    assert tokenizer.decode(tokens) == whole
    decoder = tokenizer.decoder()
    pieces = [decoder.push(token) for token in tokens]
    assert "".join(pieces) == whole
    assert all("\ufffd" not in piece for piece in pieces) or "\ufffd" in whole


def _tokens_of_bytes(tokenizer: Tokenizer, data: bytes) -> list[int]:
    number = {tokenizer.token_bytes[token]: token for token in range(256)}
    return [number[bytes([byte])] for byte in data]


@given(text=st.text(alphabet="ab\n\t é水\U0001f600", min_size=1, max_size=60))
def test_the_char_tokenizer_has_a_token_for_each_character(text: str) -> None:
    tokenizer = make_tokenizer(text, "char")
    assert tokenizer.vocab_size == len(set(text))
    tokens = tokenizer.encode(text)
    assert len(tokens) == len(text)
    assert tokenizer.decode(tokens) == text
    assert tokenizer.unknown(text + "Z") == ["Z"]
    assert tokenizer.encode("Z" + text) == tokens


def test_the_auto_tokenizer_depends_on_the_number_of_characters() -> None:
    assert make_tokenizer("abc").vocab_size == 3
    many = "".join(chr(0x4E00 + index) for index in range(300))
    assert make_tokenizer(many).vocab_size == 256
    assert make_tokenizer(many, "char").vocab_size == 300
    with pytest.raises(UsageError, match="tokenizer is 'word'"):
        make_tokenizer("abc", "word")


def test_an_incomplete_character_waits() -> None:
    tokenizer = make_tokenizer("any", "byte")
    decoder = tokenizer.decoder()
    pieces = [decoder.push(token) for token in tokenizer.encode("é😀!")]
    assert pieces == ["", "é", "", "", "", "😀", "!"]

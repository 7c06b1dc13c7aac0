"""Scoring: how well a stream predicts a text, and the limits of the measurement."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rillet.runtime import Model, UsageError, load
from rillet.train import Checkpoint, evaluate, make_tokenizer
from support.command_line import here, rillet


def test_the_score_equals_trainings_loss(small_model: Model, small: Checkpoint, text: str) -> None:
    """Over a text of many chunks, with and without the memory."""
    held_out = "".join(c for c in text[60_000:66_000] if not small_model.tokenizer.unknown(c))
    expected = evaluate(small.model, torch.tensor(small.tokenizer.encode(held_out)))
    score = small_model.score(held_out)
    assert score.tokens == expected.tokens == score.characters
    assert score.bytes == len(held_out[1:].encode())
    assert score.nats_per_token == pytest.approx(expected.loss, abs=1e-4)
    assert score.perplexity == pytest.approx(math.exp(expected.loss), rel=1e-3)
    assert score.bits_per_char == pytest.approx(expected.loss / math.log(2), rel=1e-4)
    without = small_model.score(held_out, memory=False)
    assert without.nats_per_token == pytest.approx(expected.without_memory, abs=1e-3)


@given(text=st.text("The statemnorf .\n", min_size=2, max_size=400))
def test_a_score_is_the_sum_over_its_tokens(small_model: Model, text: str) -> None:
    score = small_model.score(text, per_token=True)
    assert score.token_logprobs is not None
    session = small_model.session()
    expected = []
    for token in small_model.tokenizer.encode(text):
        if session.logits is not None:
            expected.append(session.logits[token])
        session.feed_tokens([token])
    np.testing.assert_allclose(score.token_logprobs, expected, atol=1e-4)
    assert score.nats == pytest.approx(-float(score.token_logprobs.sum(dtype=np.float64)))


def test_scoring_leaves_the_stream_unchanged(small_model: Model) -> None:
    """It scores the text as the stream's continuation, including the first token."""
    session = small_model.session()
    session.feed("The statement ")
    before, logits = session.state, session.logits
    rest = session.score("is a name")
    assert rest.tokens == 9
    for name, value in session.state.items():
        np.testing.assert_array_equal(value, before[name])
    np.testing.assert_array_equal(session.logits, logits)
    whole = small_model.score("The statement is a name")
    assert whole.nats == pytest.approx(small_model.score("The statement ").nats + rest.nats)


def test_learning_a_text_lowers_its_loss(small_model: Model) -> None:
    notes = "foo bar baz, foo bar baz. "
    session = small_model.session()
    before = session.score(notes)
    session.learn(notes)
    assert session.score(notes).nats < before.nats


def test_scoring_takes_constant_memory(small_model: Model) -> None:
    def peak(repeats: int) -> int:
        pieces = ("The statement is a name. " * 40 for _ in range(repeats))
        tracemalloc.start()
        result = small_model.score(pieces)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert result.tokens == repeats * 1000 - 1
        return most

    peak(5)
    small, large = peak(150), peak(300)
    assert large < small * 1.05 + 100_000


def test_multibyte_characters_are_counted(byte_model: Model) -> None:
    score = byte_model.score("aé😀水")
    assert (score.tokens, score.characters, score.bytes) == (9, 3, 9)
    assert score.bits_per_char == pytest.approx(score.bits_per_byte * 3)


@given(
    text=st.text("the cat's \n\u00e9", max_size=300),
    cuts=st.lists(st.integers(0, 300), max_size=5),
    kind=st.sampled_from(["char", "byte", "bpe"]),
)
def test_a_text_in_pieces_has_the_same_tokens(text: str, cuts: list[int], kind: str) -> None:
    sample = "the cat's é hat \n and the cat\n\n" * 30
    tokenizer = make_tokenizer(sample, kind, 300) if kind == "bpe" else make_tokenizer(sample, kind)
    edges = [0, *sorted(cuts), len(text)]
    pieces = [text[start:end] for start, end in itertools.pairwise(edges)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rillet.runtime.tokenizer._PIECE", 40)  # cuts in every text
        actual = [token for tokens in tokenizer.encode_stream(pieces) for token in tokens]
    longest_word = max((len(word) for word in text.split()), default=0)
    if kind != "bpe" or longest_word < 35:
        assert actual == tokenizer.encode(text)
    assert tokenizer.decode(actual) == tokenizer.decode(tokenizer.encode(text))


@pytest.mark.parametrize("short", ["", "T", "水水水"])
@pytest.mark.filterwarnings("ignore::rillet.runtime.UnknownCharacterWarning")
def test_a_text_that_is_too_short_is_refused(small_model: Model, short: str) -> None:
    with pytest.raises(UsageError, match="at least two tokens"):
        small_model.score(short)


def test_the_score_command(small_bundle: Path, small_model: Model, tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("is a name. " * 3)  # it repeats within the small memory's reach
    expected = small_model.score(file.read_text())

    def run(*arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
        return here("score", small_bundle, *arguments, **more)

    result = rillet("score", small_bundle, file)
    assert result.returncode == 0, result.stderr
    assert f"{expected.nats_per_token:.4f}" in result.stdout
    values = json.loads(run("-", "--json", stdin=file.read_text()).stdout)
    assert values["nats"] == pytest.approx(expected.nats)
    assert values["provider"] == load(small_bundle).engine.provider
    worse = json.loads(run(file, "--json", "--no-memory").stdout)
    better = json.loads(run(file, "--json", "--learn-from", file).stdout)
    assert better["nats"] < values["nats"] < worse["nats"]
    file.write_bytes(b"caf\xe9 " * 20_000)
    for arguments, code, message in (
        ((tmp_path / "none",), 1, "none does not exist"),
        ((file,), 1, "is not UTF-8 at byte 3"),
        ((), 2, "carries no sample of its run's text to score; give a FILE"),
    ):
        result = run(*arguments)
        assert result.returncode == code
        assert message in result.stderr
        assert "Traceback" not in result.stderr


@pytest.mark.filterwarnings("ignore:the text has characters")
@given(
    text=st.text("The statement", min_size=3, max_size=60),
    unknown=st.lists(
        st.tuples(st.integers(1, 60), st.sampled_from("水é😀")), min_size=1, max_size=9
    ),
)
def test_unknown_characters_are_paid_for(
    small_model: Model, text: str, unknown: list[tuple[int, str]]
) -> None:
    """Leaving characters out must not make a model look better than one that knows them."""
    known = small_model.score(text)
    mixed = text
    for place, character in unknown:
        mixed = mixed[: max(1, place)] + character + mixed[max(1, place) :]
    score = small_model.score([mixed[:5], mixed[5:]])
    assert (score.tokens, score.nats) == (known.tokens, pytest.approx(known.nats, abs=1e-3))
    assert score.characters == len(mixed) - 1
    assert score.bytes == len(mixed.encode()) - 1
    assert score.unknown_characters == len(unknown)
    assert score.unknown_bytes == sum(len(character.encode()) for _, character in unknown)
    # At least what a choice among all of Unicode costs, and at most that and one bit a character.
    total, literal = score.bits_per_byte * score.bytes, 20.08 * len(unknown)
    assert total == pytest.approx(score.bits_per_char * score.characters)
    least = known.bits_per_char * known.characters + literal
    assert least - 0.1 < total < least + score.characters + 0.1


def test_the_share_of_unknown_characters_is_in_each_line(
    small_bundle: Path, tmp_path: Path
) -> None:
    file = tmp_path / "text.txt"
    file.write_text("The 水 statement", encoding="utf-8")
    lines = here("score", small_bundle, file).stdout.splitlines()
    assert len(lines) == 5
    assert all("without 7.14% of the characters" in line for line in lines[:3])
    assert all("with 7.14% unknown characters at 25." in line for line in lines[3:])
    figures = json.loads(here("score", small_bundle, file, "--json").stdout)
    assert (figures["characters"], figures["unknown_characters"]) == (14, 1)
    assert (figures["bytes"], figures["unknown_bytes"]) == (16, 3)
    bits = (figures["nats"] + figures["unknown_nats"]) / math.log(2)
    assert figures["bits_per_byte"] == pytest.approx(bits / 16)
    file.write_text("The statement", encoding="utf-8")
    assert "unknown" not in here("score", small_bundle, file).stdout

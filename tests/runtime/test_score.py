"""How well a stream predicts a text: the figures, their definition, and their limits."""

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

from rillet.runtime import Model, UsageError
from rillet.train import Checkpoint, evaluate, make_tokenizer
from support.command_line import here, rillet


def test_the_loss_is_trainings(small_model: Model, small: Checkpoint, text: str) -> None:
    """The same figure as PyTorch's, over a text of many chunks."""
    held_out = "".join(c for c in text[60_000:66_000] if not small_model.tokenizer.unknown(c))
    wanted = evaluate(small.model, torch.tensor(small.tokenizer.encode(held_out)))
    found = small_model.score(held_out)
    assert found.tokens == wanted.tokens == found.characters
    assert found.bytes == len(held_out[1:].encode())
    assert found.nats_per_token == pytest.approx(wanted.loss, abs=1e-4)
    assert found.perplexity == pytest.approx(math.exp(wanted.loss), rel=1e-3)
    assert found.bits_per_char == pytest.approx(wanted.loss / math.log(2), rel=1e-4)
    without = small_model.score(held_out, memory=False)
    assert without.nats_per_token == pytest.approx(wanted.without_memory, abs=1e-3)


@given(text=st.text("The statemnorf .\n", min_size=2, max_size=400))
def test_a_score_adds_up_its_tokens(small_model: Model, text: str) -> None:
    found = small_model.score(text, per_token=True)
    assert found.token_logprobs is not None
    session = small_model.session()
    wanted = []
    for token in small_model.tokenizer.encode(text):
        if session.logits is not None:
            wanted.append(session.logits[token])
        session.feed_tokens([token])
    np.testing.assert_allclose(found.token_logprobs, wanted, atol=1e-4)
    assert found.nats == pytest.approx(-float(found.token_logprobs.sum(dtype=np.float64)))


def test_scoring_leaves_the_stream_where_it_is(small_model: Model) -> None:
    """And scores what comes next in it: the first token as well."""
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


def test_learning_lowers_the_score(small_model: Model) -> None:
    notes = "foo bar baz, foo bar baz. "
    session = small_model.session()
    before = session.score(notes)
    session.learn(notes)
    assert session.score(notes).nats < before.nats


def test_memory_does_not_grow_with_the_text(small_model: Model) -> None:
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


def test_characters_of_several_bytes(byte_model: Model) -> None:
    score = byte_model.score("aé😀水")
    assert (score.tokens, score.characters, score.bytes) == (9, 3, 9)
    assert score.bits_per_char == pytest.approx(score.bits_per_byte * 3)


@given(
    text=st.text("the cat's \n\u00e9", max_size=300),
    cuts=st.lists(st.integers(0, 300), max_size=5),
    kind=st.sampled_from(["char", "byte", "bpe"]),
)
def test_a_text_in_pieces_has_the_same_tokens(text: str, cuts: list[int], kind: str) -> None:
    import rillet.runtime.tokenizer as module

    sample = "the cat's é hat \n and the cat\n\n" * 30
    tokenizer = make_tokenizer(sample, kind, 300) if kind == "bpe" else make_tokenizer(sample, kind)
    edges = [0, *sorted(cuts), len(text)]
    pieces = [text[start:end] for start, end in itertools.pairwise(edges)]
    before = module._PIECE
    module._PIECE = 40  # cuts in every text
    try:
        found = [token for tokens in tokenizer.encode_stream(pieces) for token in tokens]
    finally:
        module._PIECE = before
    words = max((len(word) for word in text.split()), default=0)
    if kind != "bpe" or words < 35:
        assert found == tokenizer.encode(text)
    assert tokenizer.decode(found) == tokenizer.decode(tokenizer.encode(text))


@pytest.mark.parametrize("short", ["", "T", "水水水"])
@pytest.mark.filterwarnings("ignore::rillet.runtime.UnknownCharacterWarning")
def test_what_is_too_short(small_model: Model, short: str) -> None:
    with pytest.raises(UsageError, match="at least two tokens"):
        small_model.score(short)


def test_the_command(small_bundle: Path, small_model: Model, tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("is a name. " * 3)  # it repeats within the little memory's reach
    wanted = small_model.score(file.read_text())

    def run(*arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
        return here("score", small_bundle, *arguments, **more)

    result = rillet("score", small_bundle, file)
    assert result.returncode == 0, result.stderr
    assert f"{wanted.nats_per_token:.4f}" in result.stdout
    values = json.loads(run("-", "--json", stdin=file.read_text()).stdout)
    assert values["nats"] == pytest.approx(wanted.nats)
    assert values["provider"] == "CPUExecutionProvider"
    worse = json.loads(run(file, "--json", "--no-memory").stdout)
    better = json.loads(run(file, "--json", "--learn-from", file).stdout)
    assert better["nats"] < values["nats"] < worse["nats"]
    file.write_bytes(b"caf\xe9 " * 20_000)
    for arguments, code, message in (
        ((tmp_path / "none",), 1, "none does not exist"),
        ((file,), 1, "is not UTF-8 at byte 3"),
        ((), 2, "Missing argument 'FILE'"),
    ):
        result = run(*arguments)
        assert result.returncode == code
        assert message in result.stderr
        assert "Traceback" not in result.stderr

"""The keyboards: what they suggest, what they learn, and how keystrokes are counted."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

import keyboard
from lib.kneser_ney import KneserNey
from lib.word_keyboard import WordKeyboard
from rillet.runtime import load

ROOT = Path(__file__).parents[2]
NANO = ROOT / "models" / "shakespeare-nano"
TALES = ROOT / "models" / "tales-nano-int8"
EXAMPLE = runpy.run_path(str(ROOT / "examples" / "keyboard.py"))

TRAINING = (
    "The cat sat on the mat. The dog sat on the cat. A cat likes the mat; Alice likes it too.\n\n"
    '"I like the cat," said Alice. "The cat likes me," said the dog. And Alice sat down.\n\n'
)


def test_probabilities_add_up() -> None:
    tokens = np.random.default_rng(0).zipf(1.5, 5_000) % 50
    model = KneserNey(tokens.astype(np.int64), 50)
    for first, second in ((1, 2), (40, 3), (7, 49), (99, 1), (1, 99)):
        assert model.chances(first, second).sum() == pytest.approx(1.0)


def test_suggests_by_the_words_before() -> None:
    words = WordKeyboard(TRAINING)
    words.read("The dog sat on the ")
    assert set(words.suggest()) >= {"mat", "cat"}
    words.read("m")
    assert words.suggest()[0] == "at"


def test_capitals_are_those_of_the_place() -> None:
    words = WordKeyboard(TRAINING)
    words.read("It sat. ")
    assert "The" in words.suggest()
    words.read("And ")
    assert "Alice" in words.suggest()


def test_learns_a_word_of_its_user() -> None:
    words = WordKeyboard(TRAINING)
    words.read("Mirab")
    assert words.suggest() == []
    words.read("elle sat on the mat. Mirab")
    assert words.suggest() == ["elle"]


def test_goes_on_for_years() -> None:
    """What the cache counts never becomes too large for a number."""
    words = WordKeyboard(TRAINING)
    words.read("cat dog " * 40_000)
    assert set(words.suggest()) >= {"cat", "dog"}


def test_keys_are_counted_as_in_the_literature() -> None:
    """A tap is one key for the rest of a word and the space after it."""
    type_text, typed = EXAMPLE["type_text"], []
    assert type_text("a bee, so", typed.append, list) == 9
    assert "".join(typed) == "a bee, so"
    typed.clear()
    assert type_text("a bee, so", typed.append, lambda: ["a", "ee", "so"]) == 6
    assert typed == ["a ", "b", "ee", ",", " ", "so"]
    read, suggest = keyboard.knows_all("a bee, so")
    assert type_text("a bee, so", read, suggest) == 5


def test_suggestions_are_the_likeliest_words() -> None:
    """The search finds what weighing every continuation finds."""
    session = load(NANO).session()
    words = EXAMPLE["Keyboard"](session, effort=10_000)
    words.read("\nROMEO:\nWhat s")
    before = session.logits
    found = words.suggest()
    assert np.array_equal(session.logits, before)  # it stays where it was
    session.feed(" s")
    texts = [
        beam.text
        for beam in session.beam_search(
            60, max_new_tokens=9, stop=list(" \n,.:;!?-"), length_penalty=0
        )
    ]
    assert len(found) == len(set(found)) == 3
    assert set(found) <= set(texts[:6])
    assert found[0] == texts[0]


@pytest.mark.filterwarnings("ignore::rillet.runtime.UnknownCharacterWarning")
@pytest.mark.parametrize("bundle", [NANO, TALES])
def test_the_stream_reads_words_however_they_are_typed(bundle: Path) -> None:
    """Its tokens are those of the whole text, wherever taps and keys cut it."""
    text = 'Once upon a time there was--I don\'t know, "how" long ago.\n\nThe king was '
    model = load(bundle)
    whole = model.session()
    EXAMPLE["Keyboard"](whole).read(text)
    for step in (1, 3):
        session = model.session()
        words = EXAMPLE["Keyboard"](session)
        for place in range(0, len(text), step):
            words.read(text[place : place + step])
            words.suggest()
        assert session.position == whole.position
        assert np.array_equal(session.logits, whole.logits)
    alone = model.session()
    alone.feed_tokens([model.start_token])
    alone.feed(text.rstrip(" "))
    assert np.array_equal(alone.logits, whole.logits)


def test_words_of_several_letters_a_token() -> None:
    """Each letter keeps the words that begin so: no token needs to end where a key was pressed."""
    words = EXAMPLE["Keyboard"](load(TALES).session())
    words.read("Once upon a time there was a king, and the king had a daughter. The ")
    assert "little" in words.suggest()
    for begun, rest in zip("kin", ("ing", "ng", "g"), strict=True):
        words.read(begun)
        assert rest in words.suggest()
    words.read("g")
    assert "dom" in words.suggest()
    words.read('." ')
    assert "The" in words.suggest()
    words.read("She didn'")
    assert words.suggest()[0] == "t"


def test_keystrokes_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus, books, result = (tmp_path / name for name in ("corpus", "books", "json"))
    corpus.write_text(TRAINING)
    book = "Mirabelle saw Annelore. Annelore saw Mirabelle.\n\n" * 6
    books.write_text(book + "\n" + book)
    options = ["--corpus", str(corpus), "--text", str(books), "--read", "120", "--type", "60"]
    monkeypatch.setattr(sys, "argv", ["keyboard", str(NANO), *options, "--json", str(result)])
    keyboard.main()
    figures, shown = json.loads(result.read_text())["figures"], capsys.readouterr().out
    for name in (keyboard.NGRAMS, str(NANO)):
        mean = figures[name]["mean"]
        assert 0 <= mean["before"] < mean["after"] <= mean["limit"] < 1
        assert len(figures[name]["books"]) == 2
        assert f"| {name} |\n" in shown

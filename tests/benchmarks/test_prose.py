"""The measure of prose: it tells real text from damaged text, and recommends what comes closest."""

from __future__ import annotations

import json
import random
import shutil
import sys
from pathlib import Path

import pytest

import prose
from lib.prose_measures import measure, sentences_of, words_of
from rillet.runtime import load

NANO = Path(__file__).parents[2] / "models" / "shakespeare-nano"

TALE = (
    'The old man sat on the wall and looked at the sea. "Where is my boat?" he said.\n\n'
    "His daughter came down the path with a basket of apples, and gave him one. It was red.\n\n"
    '"The boat is gone," she said. "We shall make a new one, you and I."\n\n'
)
WORDS = set(words_of(TALE))


def test_words_and_sentences() -> None:
    assert words_of("Don't go, said O'Neil's 3 dogs_") == [
        "don't",
        "go",
        "said",
        "o'neil's",
        "dogs",
    ]
    first = sentences_of(TALE.split("\n\n")[0])
    assert first == ["The old man sat on the wall and looked at the sea.", "Where is my boat?"]
    assert sentences_of("Too short. " + "far too long " * 10 + ".") == []


def test_real_text_scores_full_marks() -> None:
    values = measure([TALE], WORDS)
    assert values["words"] == values["quotes"] == 1.0
    assert values["trigrams"] == 1.0
    assert values["repeated"] == 0.0


def test_each_damage_shows_in_its_measure() -> None:
    values = measure([TALE.replace("the", "teh")], WORDS)
    assert values["words"] is not None
    assert 0.8 < values["words"] < 0.99
    assert measure([TALE.replace('?"', "?")], WORDS)["quotes"] == 0.5
    assert measure([TALE.replace('"', "")], WORDS)["quotes"] is None
    twice = measure([TALE + TALE], WORDS)
    assert twice["repeated"] == pytest.approx(0.5, abs=0.05)
    assert twice["trigrams"] == pytest.approx(0.5, abs=0.05)


@pytest.mark.skipif(shutil.which("link-parser") is None, reason="needs Debian's link-grammar")
def test_the_parser_tells_sentences_from_shuffled_words() -> None:
    assert measure([TALE], WORDS)["sentences"] == 1.0
    draw = random.Random(0)  # noqa: S311
    shuffled = "\n\n".join(
        " ".join(draw.sample(words := sentence.rstrip(".?").split(), len(words))) + "."
        for paragraph in TALE.split("\n\n")
        for sentence in sentences_of(paragraph)
    )
    assert (measure([shuffled + "\n\n"], WORDS)["sentences"] or 0) < 0.5


def test_without_the_parser_there_is_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda program: None)
    assert measure([TALE], WORDS)["sentences"] is None


def test_the_closest_setting_is_recommended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus, result = tmp_path / "corpus.txt", tmp_path / "result.json"
    sample = json.loads((NANO / "text_sample.json").read_text())
    corpus.write_text(load(NANO).tokenizer.decode(sample["tokens"]))
    options = ["--corpus", str(corpus), "--text", str(corpus), "--texts", "2", "--length", "400"]
    monkeypatch.setattr(sys, "argv", ["prose", str(NANO), *options, "--json", str(result)])
    monkeypatch.setattr(prose, "SETTINGS", ({"temperature": 5.0}, {"temperature": 0.5}))
    prose.main()
    figures = json.loads(result.read_text())["figures"]
    assert figures["held-out text"]["words"] == 1.0
    hot, cool = figures[str(NANO)]["measured"]
    assert cool["words"] > 0.5 > hot["words"]
    assert cool["distance"] < hot["distance"]
    assert figures[str(NANO)]["recommended"] == {"temperature": 0.5}
    assert "--temperature 0.5" in capsys.readouterr().out.splitlines()[-2]

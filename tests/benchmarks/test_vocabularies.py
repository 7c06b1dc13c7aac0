"""Characters against BPE: what is compared is equal in what the rows say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import vocabularies
from vocabularies import multiplications, parameter_count, variants, weight_bytes

SMALL = (0, 300, 400)


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabularies, "VOCABULARIES", SMALL)
    monkeypatch.setattr(vocabularies, "MIDDLE", 300)


def test_models_are_equal_in_what_their_names_say(text: str) -> None:
    corpus = text[:30_000]
    both, *others = variants(corpus, 100)
    assert both.name == "BPE 300"
    assert [other.name for other in others] == [
        "characters at equal parameters",
        "characters at equal bytes",
        "BPE 400 at equal parameters",
        "BPE 400 at equal work",
    ]
    for other, measure in zip(
        others, (parameter_count, weight_bytes, parameter_count, multiplications), strict=True
    ):
        # As many characters, and as much work for each: with longer tokens, fewer steps.
        ratio = other.steps / 100 if measure is multiplications else 1
        assert (other.steps == 100) == (measure is not multiplications)
        assert ratio * measure(other.config) == pytest.approx(measure(both.config), rel=0.08)


def test_the_rate_falls_with_the_width_as_from_nano_to_micro() -> None:
    rates = {width: vocabularies.shaped(300, width).training.learning_rate for width in (24, 144)}
    assert rates == {24: 0.012, 144: 0.003}


@pytest.mark.slow
def test_the_command_measures_each_row_once(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus, held_out, results = (tmp_path / name for name in ("corpus", "held-out", "rows.json"))
    corpus.write_text(text[:60_000], encoding="utf-8")
    held_out.write_text(text[60_000:70_000], encoding="utf-8")
    monkeypatch.setattr(vocabularies, "BURSTS", 2)
    argv = ["vocabularies.py", str(corpus), "--held-out", str(held_out), "--json", str(results)]
    argv += ["--steps", "2", "--characters", "9000", "--runs", str(tmp_path / "runs")]
    monkeypatch.setattr("sys.argv", [*argv, "--only", "BPE 300"])
    vocabularies.main()
    row = json.loads(results.read_text())["rows"]["BPE 300"]
    assert 1 < row["without_memory"] < 10
    assert row["characters_per_token"] > 1.2
    assert row["character_us"] == pytest.approx(row["token_us"] / row["characters_per_token"])
    monkeypatch.setattr(vocabularies, "measured", pytest.fail)
    vocabularies.main()
    capsys.readouterr()
    monkeypatch.setattr("sys.argv", ["vocabularies.py", "--json", str(results), "--markdown"])
    vocabularies.main()
    assert "| BPE 300 | 64 |" in capsys.readouterr().out

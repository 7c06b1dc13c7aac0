"""Odd lines and compression: what the baselines find, and that nothing is lost."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import pytest

import anomaly
import compression
import record_machine
from lib.compressors import compressors
from lib.log_baselines import BASELINES
from postgres_faults import anonymous, is_odd

NANO = Path(__file__).parents[2] / "models" / "shakespeare-nano"


def quiet_log(count: int = 120) -> list[str]:
    draw = random.Random(0)  # noqa: S311
    said = ("opened the door for", "closed the door behind", "sent a letter to")
    names = ("alice", "bob", "carol")
    return [f"the porter {draw.choice(said)} {draw.choice(names)}" for _ in range(count)]


@pytest.mark.parametrize("name", BASELINES)
def test_each_baseline_finds_a_plain_fault(name: str) -> None:
    lines = quiet_log()
    lines[77] = "fatal error: no such room, the porter has failed"
    scores = BASELINES[name](lines)
    assert len(scores) == len(lines)
    # The first lines are all new to a model that learns as it reads.
    assert max(range(20, len(lines)), key=scores.__getitem__) == 77


def test_damaged_lines_are_counted_from_one() -> None:
    lines = quiet_log()
    before = list(lines)
    odd = anomaly.damage(lines)
    changed = {n for n, (old, new) in enumerate(zip(before, lines, strict=True), 1) if old != new}
    assert changed <= odd
    assert len(changed) > len(odd) / 2  # a damage may change nothing


def test_average_precision() -> None:
    assert anomaly.average_precision([True, False, False]) == 1.0
    assert anomaly.average_precision([False, True, False, True]) == 0.5
    assert anomaly.average_precision([False]) == 0.0


def test_faults_with_labels_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = quiet_log(60)
    lines[44] = "XXXX QQQQ ZZZZ"
    log, labels, result = (tmp_path / name for name in ("log", "labels", "json"))
    log.write_text("\n".join(lines))
    labels.write_text("3\n45\n")  # one is among the lines that are not ranked
    options = [str(log), str(NANO), "--labels", str(labels), "--json", str(result)]
    monkeypatch.setattr(sys, "argv", ["anomaly", *options])
    anomaly.main()
    assert "60 lines, 1 odd" in capsys.readouterr().out
    figures = json.loads(result.read_text())["figures"]
    assert figures[f"{NANO}, whole lines"] == figures["template rarity (drain3)"] == 1.0
    ways = [f"{NANO}, {how}" for how in anomaly.WAYS]
    assert set(figures) == {*BASELINES, *ways, *(f"{way}, window 0" for way in ways)}


def test_which_lines_of_postgres_report_a_fault() -> None:
    def line(name: str, rest: str) -> str:
        return f"2026-01-02 03:04:05.678 UTC [91] <{name}> {rest}"

    assert is_odd(line("fault", "ERROR:  division by zero"))
    assert is_odd(line("fault", "STATEMENT:  SELECT 1 / 0"))
    assert is_odd(line("fault", "LOG:  process 7 detected deadlock while waiting for ShareLock"))
    assert is_odd(line("", "LOG:  server process (PID 7) was terminated by signal 9: Killed"))
    assert not is_odd(line("fault", "LOG:  statement: SELECT 1 / 0"))
    assert not is_odd(line("", "LOG:  checkpoint starting: time"))
    assert not is_odd(line("[unknown]", "LOG:  connection received: host=[local]"))
    assert not is_odd("\ttuples: 30 removed, 99966 remain")
    shown = anonymous(line("fault", "LOG:  connection authorized: application_name=fault"))
    assert "fault" not in shown
    assert shown.startswith("2026-01-02 03:04:05.678 UTC [91] LOG:")


def test_compressors_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before, text, result = (tmp_path / name for name in ("before", "text", "json"))
    before.write_text("Good morrow, cousin. Is the day so young?\n" * 20)
    text.write_text("Good morrow, cousin. But new struck nine.\n" * 5)
    options = ["--before", str(before), "--bytes", "200", "--json", str(result)]
    monkeypatch.setattr(sys, "argv", ["compression", str(text), str(NANO), *options])
    compression.main()
    assert f"200 bytes after {before.stat().st_size}" in capsys.readouterr().out
    figures = json.loads(result.read_text())["figures"]
    learning = figures[f"{NANO}, learning"]["bits_per_byte"]
    assert 0 < learning < figures[f"{NANO}, without memory"]["bits_per_byte"] < 8
    for name in {*compression.COMMON, *compressors(b"", b"")}:
        assert 0 < figures[name]["bits_per_byte"] < 8


def test_a_model_is_trained_on_a_part_of_the_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stream = tmp_path / "stream.csv"
    stream.write_text("12,34\n" * 10)
    for options, said in (
        (["--train", "30"], "--train needs --out FOLDER"),
        (["--train", "60", "--out", str(tmp_path / "own")], "--train 60 leaves nothing"),
        (["--train", "30", "--before", str(stream)], "not allowed with"),
    ):
        monkeypatch.setattr(sys, "argv", ["compression", str(stream), *options])
        with pytest.raises(SystemExit, match="2"):
            compression.main()
        assert said in capsys.readouterr().err
        assert not (tmp_path / "own").exists()


@pytest.mark.slow
def test_a_model_of_the_stream_compresses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stream, own, result = (tmp_path / name for name in ("stream.csv", "own", "json"))
    stream.write_text("".join(f"{place},{place * 7 % 100},ok\n" for place in range(3_000)))
    options = ["--train", "25000", "--training", "--steps 2 --threads 1", "--out", str(own)]
    options += ["--bytes", "500", "--json", str(result)]
    monkeypatch.setattr(sys, "argv", ["compression", str(stream), *options])
    compression.main()
    assert "minutes of a processor" in capsys.readouterr().out
    figures = json.loads(result.read_text())["figures"]
    assert figures["training"]["seconds"] > 0
    assert figures["training"]["peak_mb"] > 50
    assert 0 < figures[f"{own / 'bundle'}, learning"]["bits_per_byte"] < 8


@pytest.mark.skipif(not Path("/proc/stat").is_file(), reason="needs Linux")
def test_the_machine_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "machine.csv"
    options = [str(out), "--seconds", "0.3", "--rate", "20"]
    monkeypatch.setattr(sys, "argv", ["record_machine", *options])
    record_machine.main()
    head, *lines = out.read_text().splitlines()
    assert head.startswith("time,busy0,")
    assert len(lines) == 6
    assert all(len(line.split(",")) == len(head.split(",")) for line in lines)
    times = [float(line.split(",")[0]) for line in lines]
    assert times == sorted(times)

"""The progress bar of the command line."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest

from rillet.runtime.cli import progress
from rillet.runtime.cli.progress import ProgressBar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def lines(self) -> list[str]:
        """What the line showed, one entry for each drawing."""
        return [text.rstrip() for text in self.getvalue().split("\r") if text.strip()]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    terminal = Terminal()
    # pytest replaces sys.stderr itself between a fixture and its test.
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=terminal))
    return terminal


def test_a_terminal_shows_work_note_and_estimate(terminal: Terminal) -> None:
    with ProgressBar("training", 8) as bar:
        bar.show(2, note="loss 1.9", seconds_left=3723)
        bar.update(6)
    first, last = terminal.lines()
    assert first == "training  [#####---------------]  25%  1:02:03 left  loss 1.9"
    assert last == "training  [####################] 100%  loss 1.9"
    assert terminal.getvalue().endswith(" \r")  # the line is erased


def test_frequent_updates_are_not_all_drawn(terminal: Terminal) -> None:
    with ProgressBar("reading", 100_000) as bar:
        for _ in range(1_000):
            bar.update()
    assert bar.done == 1_000
    assert len(terminal.lines()) < 10


def test_an_unknown_total_shows_no_bar(terminal: Terminal) -> None:
    with ProgressBar("score") as bar:
        bar.update(5)
    assert terminal.lines() == ["score"]


def test_a_log_gets_a_line_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """And none while something else is printed."""
    log, clock = io.StringIO(), SimpleNamespace(now=0.0)
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=log))
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock.now))
    with ProgressBar("training", 300) as bar:
        for second in range(1, 301):
            clock.now = float(second)
            bar.show(second, note=f"loss {second}")
            if second == 150:
                bar.clear()
    lines = log.getvalue().splitlines()
    assert [line.rpartition(" ")[2] for line in lines] == ["60", "120", "210", "270"]
    assert lines[0] == "training  [####----------------]  20%  0:04:00 left  loss 60"


def test_a_file_gets_nothing_of_a_short_task(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar("score", 3) as bar:
        bar.update(3)
        bar.clear()
    assert capsys.readouterr().err == ""

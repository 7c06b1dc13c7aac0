"""``rillet train`` on whatever text it is given."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from rillet.train import DualCNNTrainer, TrainingError, load_checkpoint
from rillet.train.loop.batch_step import BatchStep
from support.command_line import RILLET, here

SETTINGS = (
    "batch=2",
    "chunk=32",
    "width=16",
    "hidden=16",
    "wave_features=16",
    "reservoir_size=32",
    "memory=96",
    "attention_window=16",
    "wave_window=16",
)
TINY = (
    *("--steps", 2, "--no-plot", "--threads", 1, "--tokenizer", "char"),
    *(word for setting in SETTINGS for word in ("--set", setting)),
)


WRITTEN = re.compile(r"^step (\d) writes:\n((?:.|\n){100,}?)\n\n?(?=step)", re.MULTILINE)


@pytest.fixture
def notes(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "notes.txt"
    path.write_text(text[:20_000], encoding="utf-8", newline="")
    return path


def weights(run: Path) -> bytes:
    """The weights of a run, whatever its record says."""
    state = load_checkpoint(run).model.state_dict()
    return b"".join(tensor.numpy().tobytes() for tensor in state.values())


def test_standard_input_trains_like_a_file(notes: Path, tmp_path: Path) -> None:
    assert here("train", "--corpus", notes, "--out", tmp_path / "file", *TINY).returncode == 0
    piped = ("train", "--corpus", "-", "--out", tmp_path / "piped", *TINY)
    result = here(*piped, stdin=notes.read_text(encoding="utf-8"))
    assert result.returncode == 0, result.stderr
    assert weights(tmp_path / "piped") == weights(tmp_path / "file")
    record = load_checkpoint(tmp_path / "piped").training
    assert record["corpus"] == "standard input"
    assert record["corpus_sha256"] == load_checkpoint(tmp_path / "file").training["corpus_sha256"]
    again = here(*piped, "--resume", stdin=notes.read_text(encoding="utf-8"))
    assert again.returncode == 0, again.stderr
    other = here(*piped, "--resume", stdin=notes.read_text(encoding="utf-8") + "more")
    assert other.returncode == 1
    assert "belongs to another run: the corpus" in other.stderr
    assert {file.name for file in (tmp_path / "piped").iterdir()} == {
        file.name for file in (tmp_path / "file").iterdir()
    }


def test_pipes_serve_as_corpus_and_as_held_out_text(notes: Path, tmp_path: Path) -> None:
    held_out = notes.read_bytes()[:3_000]
    for name, data in (("corpus", notes.read_bytes()), ("other", held_out)):
        os.mkfifo(tmp_path / name)
        threading.Thread(target=(tmp_path / name).write_bytes, args=(data,), daemon=True).start()
    words = ("--corpus", tmp_path / "corpus", "--validation", tmp_path / "other")
    result = here("train", *words, "--out", tmp_path / "run", *TINY)
    assert result.returncode == 0, result.stderr
    record = load_checkpoint(tmp_path / "run").training
    assert record["corpus"] == "the pipe corpus"
    assert record["given"] == {"corpus": ["-"], "validation": "PIPE2", "threads": 1}
    assert record["held_out"]["tokens"] == len(held_out.decode()) - 1


@pytest.mark.slow
def test_process_substitution_trains(notes: Path, tmp_path: Path) -> None:
    words = " ".join([*RILLET, "train", "--corpus", "<(cat notes.txt)", "--out", "run"])
    result = subprocess.run(
        ["/bin/bash", "-c", f"{words} {' '.join(map(str, TINY))}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert load_checkpoint(tmp_path / "run").training["corpus"] == "a pipe"


def test_a_run_that_diverges_keeps_its_log(
    notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = DualCNNTrainer.step

    def step(self: DualCNNTrainer, batch: BatchStep, number: int) -> object:
        if number == 4:
            raise TrainingError("the loss is nan")
        return inner(self, batch, number)

    monkeypatch.setattr(DualCNNTrainer, "step", step)
    options = ("--steps", 9, "--set", "report_every=2")
    result = here("train", "--corpus", notes, "--out", tmp_path / "run", *TINY, *options)
    assert result.returncode == 1, result.stderr
    rows = (tmp_path / "run" / "log.csv").read_text().splitlines()
    assert [row.partition(",")[0] for row in rows] == ["step", "2", "4"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_of_a_pipe_that_was_interrupted(
    tmp_path: Path, number: signal.Signals
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    run = tmp_path / "run"
    process = subprocess.Popen(
        [*RILLET, "train", "--corpus", pipe, "--out", run, *map(str, TINY)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with contextlib.suppress(BrokenPipeError), pipe.open("wb", buffering=0) as file:
        file.write(b"A text without an end.\n" * 100_000)  # the command is reading it
        process.send_signal(number)
        while True:
            file.write(b"And on.\n")
    status = process.wait()
    assert status == (130 if number == signal.SIGINT else -signal.SIGKILL)
    assert list(run.iterdir()) == []


def test_notes_say_what_is_odd_about_a_text(notes: Path, tmp_path: Path) -> None:
    notes.write_bytes(notes.read_bytes() + b"st\0ray\0\n")
    words = ("--corpus", notes, "--corpus", notes)
    result = here("train", *words, "--out", tmp_path / "run", *TINY)
    assert result.returncode == 0, result.stderr
    assert "Note: notes.txt is given more than once; it is read once\n" in result.stderr
    assert "Note: the text has 2 NUL characters (U+0000)" in result.stderr


def test_held_out_text_that_is_trained_on_is_refused(notes: Path, tmp_path: Path) -> None:
    words = ("--corpus", tmp_path, "--validation", notes)
    result = here("train", *words, "--out", tmp_path / "run", *TINY)
    assert result.returncode == 2
    assert "notes.txt is both trained on and held out" in result.stderr


def test_several_processes_cannot_share_a_pipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rillet.train.cli import train
    from rillet.train.loop.distributed import Group

    monkeypatch.setattr(train, "start_group", lambda device: Group(0, 2))
    monkeypatch.setattr(Group, "finish", lambda group: None)
    result = here("train", "--corpus", "-", "--out", tmp_path / "run", *TINY)
    assert result.returncode == 2
    assert "standard input can be read by one process, but there are 2" in result.stderr
    assert not (tmp_path / "run").exists()


def test_texts_written_on_the_way_do_not_change_the_result(notes: Path, tmp_path: Path) -> None:
    outputs = []
    for name in ("without", "with", "again"):
        words = ("--corpus", notes, "--out", tmp_path / name, *TINY, "--steps", 6)
        every = () if name == "without" else ("--sample-every", 2)
        result = here("train", *words, "--set", "dropout=0.2", *every)
        assert result.returncode == 0, result.stderr
        outputs.append(WRITTEN.findall(result.stdout))
    assert weights(tmp_path / "without") == weights(tmp_path / "with")
    assert outputs[0] == []
    assert [step for step, _ in outputs[1]] == ["2", "4", "6"]
    assert outputs[1] == outputs[2]

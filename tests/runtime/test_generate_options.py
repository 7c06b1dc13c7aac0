"""`rillet generate`: what a saved stream keeps, what JSON tells, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rillet.runtime import Model
from rillet.runtime.cli import main
from support.command_line import here

RILLET = [sys.executable, "-m", "rillet.runtime", "generate"]


def generate(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Run the command in this process: its exit status, what it wrote, and its messages."""
    with pytest.raises(SystemExit) as ended:
        main(["generate", *map(str, arguments)])
    output = capsys.readouterr()
    return int(str(ended.value.code)), output.out, output.err


def test_a_loaded_stream_keeps_the_options_that_are_not_given(
    small_bundle: Path, small_model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A greedy stream stays greedy when only its stop string changes."""
    state = tmp_path / "state"
    options = ("--temperature", 0, "--max-new-tokens", 8, "--save-state", state)
    assert generate(capsys, small_bundle, "The ", *options)[0] == 0
    greedy = small_model.generate("The ", temperature=0, max_new_tokens=28)
    more = ("--load-state", state, "--stop", "zzqq", "--max-new-tokens", 20)
    assert generate(capsys, small_bundle, *more) == (0, greedy[8:] + "\n", "")
    session = small_model.restore(state)
    session.feed("And ")
    expected = session.generate(temperature=0, max_new_tokens=5)
    prompted = ("--load-state", state, "--max-new-tokens", 5)
    assert generate(capsys, small_bundle, "And ", *prompted)[1] == f"And {expected}\n"


def test_a_changed_option_leaves_the_random_numbers_in_order(small_model: Model) -> None:
    """The same options, given again, change nothing; held-back text is shown."""
    whole = small_model.generate("The ", seed=3, max_new_tokens=40, stop=["zzz"])
    session = small_model.session()
    session.feed("The ")
    text = session.generate(seed=3, max_new_tokens=15, stop=["zzz"])
    text += "".join(session.resume(25, temperature=0.8, stop=["qqq"]))
    assert text == whole


def test_json_tells_how_it_ended(
    small_bundle: Path, small_model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    text = small_model.generate("The ", seed=3, max_new_tokens=40)
    stop = text[20:23]
    arguments = ("The ", "--seed", 3, "--stop", stop, "--json", "--logprobs", 2)
    line = json.loads(generate(capsys, small_bundle, *arguments)[1])
    assert line["text"] == text[: text.index(stop)]
    assert (line["finish_reason"], line["stop_string"], line["seed"]) == ("stop", stop, 3)
    assert len(line["logprobs"]) == line["tokens"]
    assert "".join(entry["token"] for entry in line["logprobs"]) == line["text"] + stop
    for entry in line["logprobs"]:
        assert len(entry["top"]) == 2
        assert entry["logprob"] <= entry["top"][0]["logprob"]


def test_a_drawn_seed_is_told_and_repeats_the_text(
    small_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("The ", "--max-new-tokens", 12)
    first = json.loads(generate(capsys, small_bundle, *options, "--json")[1])
    again = generate(capsys, small_bundle, *options, "--seed", first["seed"], "--stats")
    assert again[1] == f"The {first['text']}\n"
    assert f"seed {first['seed']}" in again[2]


def test_without_echo_the_prompt_is_not_written(
    small_bundle: Path, small_model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = small_model.generate("The ", seed=3, max_new_tokens=9)
    options = ("The ", "--seed", 3, "--max-new-tokens", 9, "--no-echo")
    assert generate(capsys, small_bundle, *options)[1] == expected + "\n"


def test_logprobs_are_for_json(small_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, error = generate(capsys, small_bundle, "The ", "--logprobs", 2)
    assert status == 2
    assert "give both" in error


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_exit_status_names_the_signal(
    small_bundle: Path, number: signal.Signals, status: int
) -> None:
    command = [*RILLET, str(small_bundle), "The ", "--max-new-tokens", "10000000"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ}
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(40)  # it is under way
        process.send_signal(number)
        process.stdout.read()
    assert process.returncode == status


def test_a_mistake_in_a_command_never_ends_the_stream(
    small_bundle: Path, small_model: Model, tmp_path: Path
) -> None:
    """Commands confirm what they did, or say what was wrong, and the next line is answered."""
    state = tmp_path / "state"
    lines = (
        f"/save {tmp_path}/missing/state\n/sav {state}\n/learn\n/learn names\n/save {state}\nis\n"
    )
    options = ("-i", "--seed", 1, "--max-new-tokens", 9)
    result = here("generate", small_bundle, *options, stdin=lines)
    assert result.returncode == 0, result.stderr
    messages = result.stderr.splitlines()
    assert messages[0].startswith("Error: ")
    assert "missing/state cannot be written" in messages[0]
    assert messages[1].startswith(f"/sav {state} is not a command. Commands: /reset")
    assert messages[2].startswith("/learn is not a command.")
    assert messages[3] == "Learned 5 tokens."
    assert messages[4] == f"Saved to {state}."
    session = small_model.session()
    session.learn("names")
    session.feed("is\n")
    assert result.stdout == session.generate(max_new_tokens=9, seed=1, stop="\n") + "\n"
    assert small_model.restore(state).position == 0


def test_a_warning_is_a_sentence_without_source(small_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("The names \N{SNOWMAN} are names.", encoding="utf-8")
    result = here("score", small_bundle, tmp_path / "text", "--json")
    assert result.returncode == 0
    assert result.stderr.startswith("Note: the text has characters")
    assert len(result.stderr.splitlines()) == 1
    assert ".py" not in result.stderr

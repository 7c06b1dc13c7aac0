"""`rillet generate`: options, saved streams, prompts from files, and the interactive mode."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rillet.runtime import Model
from rillet.runtime.cli.entry import main
from support.command_line import here, rillet


def generate(bundle: Path, *arguments: object, **more: Any) -> subprocess.CompletedProcess[str]:
    return here("generate", bundle, *arguments, **more)


def test_command_line_options_equal_python_options(small_bundle: Path, small_model: Model) -> None:
    options: dict[str, Any] = {
        "max_new_tokens": 60,
        "seed": 3,
        "temperature": 1.1,
        "top_k": 20,
        "top_p": 0.95,
        "min_p": 0.01,
        "typical_p": 0.9,
        "stop": "zq",
        "repetition_penalty": 1.1,
        "frequency_penalty": 0.1,
        "presence_penalty": 0.2,
    }
    flags = [(f"--{name.replace('_', '-')}", value) for name, value in options.items()]
    flags += [("--bad-word", "th"), ("--bad-word", "e ")]
    result = generate(small_bundle, "The ", "--stats", *(part for flag in flags for part in flag))
    assert result.returncode == 0, result.stderr
    expected = small_model.generate("The ", bad_words=["th", "e "], **options)
    assert result.stdout == f"The {expected}\n"
    assert "60 tokens" in result.stderr
    assert f"on {small_model.engine.provider}, seed 3; ended by length" in result.stderr


def test_a_saved_stream_continues_in_the_next_command(
    small_bundle: Path, small_model: Model, tmp_path: Path
) -> None:
    whole = small_model.generate("The ", max_new_tokens=50, seed=2)
    options = ("--max-new-tokens", 20, "--seed", 2)
    first = rillet("generate", small_bundle, "The ", *options, "--save-state", tmp_path / "s")
    assert first.stdout == f"The {whole[:20]}\n"
    second = rillet(
        "generate", small_bundle, "--load-state", tmp_path / "s", "--max-new-tokens", 30
    )
    assert second.stdout == f"{whole[20:]}\n"
    # With more to read, a new text begins in the same stream.
    options = ("--max-new-tokens", 10, "--seed", 5)
    third = generate(small_bundle, "And ", "--load-state", tmp_path / "s", *options)
    session = small_model.restore(tmp_path / "s")
    session.feed("And ")
    assert third.stdout == f"And {session.generate(max_new_tokens=10, seed=5)}\n"
    (tmp_path / "s").write_bytes(b"damaged")
    result = generate(small_bundle, "--load-state", tmp_path / "s")
    assert result.returncode == 1
    assert "is damaged" in result.stderr
    assert "Traceback" not in result.stderr


def test_prompts_from_files_and_several_texts(
    small_bundle: Path, small_model: Model, tmp_path: Path
) -> None:
    file = tmp_path / "prompt.txt"
    file.write_text("In a statement ")
    options = ("--max-new-tokens", 15, "--seed", 4, "--n", 3, "--json")
    expected = [
        small_model.generate("In a statement ", max_new_tokens=15, seed=4 + i) for i in range(3)
    ]
    for result in (
        generate(small_bundle, "--file", file, *options),
        generate(small_bundle, "-", *options, stdin="In a statement "),
        generate(small_bundle, "-f", "-", *options, stdin="In a statement "),
        generate(small_bundle, "In a statement ", *options),
    ):
        assert result.returncode == 0, result.stderr
        lines = [json.loads(line) for line in result.stdout.splitlines()]
        assert [line["text"] for line in lines] == expected
        assert {line["finish_reason"] for line in lines} == {"length"}


def test_a_choice_ends_the_text(small_bundle: Path) -> None:
    result = generate(small_bundle, "The ", "--choice", "name", "--choice", "value", "--json")
    answer = json.loads(result.stdout)
    assert answer["text"] in ("name", "value")
    assert answer["finish_reason"] == "choice"


def test_a_text_to_learn_from(small_bundle: Path, small_model: Model, tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("is a name. " * 3)
    options = ("--seed", 1, "--max-new-tokens", 30, "--json")
    result = generate(small_bundle, "is a ", "--learn-from", notes, *options)
    assert result.returncode == 0, result.stderr
    session = small_model.session()
    session.learn(notes.read_text())
    session.feed("is a ")
    assert json.loads(result.stdout)["text"] == session.generate(max_new_tokens=30, seed=1)


def test_the_interactive_mode_answers_each_line(
    small_bundle: Path, small_model: Model, tmp_path: Path
) -> None:
    lines = "The statement\n/nonsense\nis a\n/forget\nname\n"
    options = ("--seed", 1, "--max-new-tokens", 30)
    result = generate(small_bundle, "-i", *options, stdin=lines, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "Commands: /reset" in result.stderr
    session = small_model.session()
    expected = ""
    for line in ("The statement\n", "is a\n", "name\n"):
        if line == "name\n":
            session.forget()
        session.feed(line)
        expected += session.generate(max_new_tokens=30, seed=1, stop="\n") + "\n"
    assert result.stdout == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "--file", "b"], "there are a prompt and --file"),
        (["a", "--n", "2", "--save-state", "s"], "--save-state saves one stream"),
        (["-i", "--json"], "--interactive reads lines"),
        (["--stop", ""], "stop has the entry ''"),
        (["--choice", "a", "--choice", "ab"], "which is the beginning of 'ab'"),
        (["--presence-penalty", "nan"], "presence_penalty is nan"),
    ],
)
def test_conflicting_options_are_refused(
    small_bundle: Path, arguments: list[str], message: str
) -> None:
    result = generate(small_bundle, *arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


NUMBERS = st.one_of(st.integers(-3, 2**70), st.floats(), st.text(max_size=4)).map(str)
OPTIONS = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from(
                [
                    "--temperature",
                    "--top-k",
                    "--top-p",
                    "--min-p",
                    "--typical-p",
                    "--seed",
                    "--repetition-penalty",
                    "--frequency-penalty",
                    "--presence-penalty",
                    "--penalty-window",
                    "--no-repeat-ngram-size",
                    "--epsilon-cutoff",
                    "--eta-cutoff",
                    "--min-new-tokens",
                    "--stop-token-id",
                    "--max-time",
                    "--threads",
                ]
            ),
            NUMBERS,
        ),
        st.tuples(st.sampled_from(["--stop", "--bad-word", "--choice"]), st.text(max_size=5)),
        st.tuples(st.sampled_from(["--json", "--stats", "--no-memory"])),
    ),
    max_size=4,
)


@settings(max_examples=int(os.environ.get("RILLET_EXAMPLES", "25")) * 8)
@given(prompt=st.text(max_size=30), options=OPTIONS)
def test_no_option_prints_a_traceback(
    small_bundle: Path, prompt: str, options: list[tuple[str, ...]]
) -> None:
    """In this process: thousands of commands would take hours in processes of their own."""
    flat = [part for option in options for part in option if "\0" not in part]
    threads = [i for i, part in enumerate(flat) if part == "--threads"]
    if any(value.isdecimal() and int(value) > 2 for i in threads for value in flat[i + 1 : i + 2]):
        return  # valid, but it would start that many threads
    if prompt.strip() == "-" or prompt.startswith("-"):
        prompt = ""
    errors = io.StringIO()
    with pytest.raises(SystemExit) as left, contextlib.redirect_stderr(errors):
        main(["generate", str(small_bundle), prompt, "--max-new-tokens", "3", *flat])
    assert left.value.code in (0, 1, 2)
    assert "itself failed" not in errors.getvalue()
    assert (left.value.code == 0) == ("Error: " not in errors.getvalue())

"""``rillet-run`` writes what ``rillet generate --provider native`` writes."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rillet.runtime import load
from rillet.runtime.bundle import checksum
from rillet.train import Checkpoint, make_tokenizer
from support.command_line import here
from support.models import SMALL, train_small
from support.native import native_bundle, needs_native
from support.rillet_run import needs_compiler, program, rillet_run

pytestmark = [needs_native, needs_compiler]

SHIPPED = Path(__file__).parents[2] / "models" / "shakespeare-nano"


@pytest.fixture(scope="module")
def bundles(
    small: Checkpoint,
    variant_checkpoint: Callable[[str], Checkpoint],
    text: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    """A bundle of each kind of tokenizer and memory."""
    folder = tmp_path_factory.mktemp("bundles")
    lesson = folder / "lesson.txt"
    lesson.write_text(text[:20_000], encoding="utf-8")
    characters = "".join(chr(0x4E00 + index % 300) + "é😀a\n"[index % 4] for index in range(4_000))
    pairs = make_tokenizer(text[:30_000] + "é😀" * 20, "bpe", 330)
    made = {
        "kernel memory": small,
        "bytes": train_small(SMALL, characters, steps=15),
        "byte pairs": train_small(SMALL, text[:30_000], 12, pairs),
    }
    paths = {name: native_bundle(made[name], folder / name) for name in made}
    contexts = variant_checkpoint("memory of contexts")
    return {
        **paths,
        "taught": native_bundle(contexts, folder / "taught", lesson),
        "shipped": SHIPPED,
    }


@pytest.fixture
def small_bundle(bundles: dict[str, Path]) -> Path:
    """A bundle without a memory of contexts."""
    return bundles["kernel memory"]


def both(*arguments: object, stdin: str = "") -> tuple[bytes, bytes]:
    """What each of the two writes; C comes first."""
    mine = rillet_run(*arguments, stdin=stdin.encode("utf-8", "surrogateescape"))
    theirs = here("generate", *arguments, "--provider", "native", stdin=stdin)
    assert (mine.returncode, theirs.returncode) == (0, 0), (mine.stderr, theirs.stderr)
    return mine.stdout, theirs.stdout.encode("utf-8", "surrogateescape")


EVERY = ("shipped", "kernel memory", "taught", "bytes", "byte pairs")
SAMPLED = ["--seed", 7, "--max-new-tokens", 150]


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(
    "options",
    [
        ["--temperature", 0, "--max-new-tokens", 120],
        [*SAMPLED],
        [*SAMPLED, "--learn", "all", "--temperature", 1.5, "--min-p=0.05"],
        [*SAMPLED, "--top-k", 5, "--top-p", 0.9, "--no-echo", "--stop", "he", "--stop", "\n"],
        [*SAMPLED, "--no-memory", "--learn", "none"],
        [*SAMPLED, "--untaught", "--no-stream"],
        ["--max-new-tokens", 0],
    ],
    ids=["greedy", "sampled", "learning", "filtered", "without memory", "untaught", "nothing"],
)
def test_writes_the_same_text_and_saves_the_same_stream(
    name: str, options: list[object], bundles: dict[str, Path], tmp_path: Path
) -> None:
    prompt = "The first line.\n  It's a 2nd one" if name != "bytes" else "一丁é😀a\n"
    files = tmp_path / "c", tmp_path / "python"
    command = [bundles[name], prompt, *options]
    if "--seed" not in options:
        command += ["--seed", 1]  # saved, though nothing is drawn with it
    mine = rillet_run(*command, "--save-state", files[0])
    theirs = here("generate", *command, "--provider", "native", "--save-state", files[1])
    assert mine.returncode == 0, mine.stderr
    assert mine.stdout.decode("utf-8", "surrogateescape") == theirs.stdout
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--max-new-tokens", 30],
        ["--temperature", 0.3],
        ["--seed", 11, "--max-new-tokens", 40, "--stop", "e"],
        ["--stop", "zz"],
        ["and then", "--max-new-tokens", 30],
    ],
    ids=["same", "longer", "colder", "new seed", "new stop", "new prompt"],
)
def test_continues_what_either_has_saved(
    name: str, options: list[object], bundles: dict[str, Path], tmp_path: Path
) -> None:
    """In mid-sentence, with text that is held back, and bytes that begin a character."""
    model, saved = load(bundles[name], "native"), tmp_path / "saved"
    session = model.session(learn="all")
    session.feed("a")
    stream = session.stream(
        seed=5, max_new_tokens=60, stop=["zz", "e the", " \n\n"], temperature=1.4
    )
    for _ in zip(range(25), stream.tokens, strict=False):
        pass
    session.save(saved)
    ends = tmp_path / "c", tmp_path / "python"
    mine = rillet_run(bundles[name], *options, "--load-state", saved, "--save-state", ends[0])
    arguments = (bundles[name], *options, "--load-state", saved, "--save-state", ends[1])
    theirs = here("generate", *arguments, "--provider", "native")
    assert mine.returncode == 0, mine.stderr
    assert mine.stdout.decode("utf-8", "surrogateescape") == theirs.stdout
    assert ends[0].read_bytes() == ends[1].read_bytes()


def test_shows_text_that_was_not_delivered(small_bundle: Path, tmp_path: Path) -> None:
    """A token that an interrupted reader has not seen."""
    session = load(small_bundle, "native").session()
    stream = session.stream(seed=5, max_new_tokens=30)
    next(stream)
    stream.tokens.peek()
    session.save(tmp_path / "saved")
    mine, theirs = both(small_bundle, "--load-state", tmp_path / "saved")
    assert mine == theirs


def test_shows_text_before_a_stop_that_was_not_delivered(
    small_bundle: Path, tmp_path: Path
) -> None:
    """A new stop string is in what the old one held back: nothing comes after what is before it."""
    model, params = load(small_bundle, "native"), {"temperature": 0.0, "max_new_tokens": 30}
    text = model.session().generate(**params)
    session = model.session()
    list(zip(range(7), session.tokens(stop=text[5:7] + "\0", **params), strict=False))
    session.resume(stop=text[6])
    session.save(tmp_path / "saved")
    mine, theirs = both(small_bundle, "--load-state", tmp_path / "saved")
    assert mine == theirs == text[5:6].encode() + b"\n"


def test_continues_a_text_without_an_end(small_bundle: Path, tmp_path: Path) -> None:
    session = load(small_bundle, "native").session()
    next(session.stream(seed=5, max_new_tokens=2**63 - 1))
    session.save(tmp_path / "saved")
    mine, theirs = both(small_bundle, "--load-state", tmp_path / "saved", "--max-new-tokens", 20)
    assert mine == theirs


@pytest.mark.parametrize("name", ["kernel memory", "taught", "shipped"])
@pytest.mark.parametrize("loaded", [False, True])
def test_learns_from_a_text(
    name: str, loaded: bool, bundles: dict[str, Path], text: str, tmp_path: Path
) -> None:
    lesson, options = tmp_path / "lesson.txt", [*SAMPLED]
    lesson.write_text(text[3_000:6_000], encoding="utf-8")
    if loaded:
        session = load(bundles[name], "native").session()
        session.feed("The stream that was saved.")
        session.save(tmp_path / "saved")
        options += ["--load-state", tmp_path / "saved"]
    mine, theirs = both(bundles[name], *options, "--learn-from", lesson)
    assert mine == theirs


def test_reads_its_prompt_from_a_file_or_standard_input(small_bundle: Path, tmp_path: Path) -> None:
    prompt = "The words of a longer prompt\n" * 700
    path = tmp_path / "prompt"
    path.write_text(prompt, encoding="utf-8")
    assert (
        len(
            {
                *both(small_bundle, "-", *SAMPLED, stdin=prompt),
                *both(small_bundle, "-f", path, *SAMPLED),
            }
        )
        == 1
    )


def test_reads_any_bytes_and_writes_them(bundles: dict[str, Path]) -> None:
    mine, theirs = both(bundles["bytes"], "-", *SAMPLED, stdin="a\udcff\udce4\udcb8")
    assert mine == theirs
    assert mine.startswith(b"a\xff\xe4\xb8")


def test_notes_characters_that_it_has_never_seen(small_bundle: Path) -> None:
    arguments = (small_bundle, "naïve ïï 東 \x07\\\x7f\x85", "--max-new-tokens", 5, "--seed", 1)
    mine = rillet_run(*arguments)
    theirs = here("generate", *arguments, "--provider", "native")
    assert mine.stderr.decode() == theirs.stderr
    assert mine.stdout.decode() == theirs.stdout


def test_a_terminal_gets_nothing_to_obey(small_bundle: Path) -> None:
    ours, terminal = pty.openpty()
    command = [program(), str(small_bundle), "a\x1b[31m", "--max-new-tokens", "0"]
    subprocess.run(command, stdout=terminal, stderr=subprocess.DEVNULL, check=True)
    os.close(terminal)
    shown = b""
    with contextlib.suppress(OSError):  # how Linux says that no writer is left
        while part := os.read(ours, 1_000):  # which may end anywhere
            shown += part
    os.close(ours)
    assert shown.replace(b"\r\n", b"\n") == b"a\\x1b[31m\n"


def test_a_signal_stops_it_between_two_tokens_and_saves(small_bundle: Path, tmp_path: Path) -> None:
    """What was written and what comes after it are the text of one run."""
    options = ("--seed", 3, "--max-new-tokens", 2_000, "--provider", "native")
    whole = here("generate", small_bundle, "a", *options).stdout
    for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        saved = tmp_path / str(number)
        command = [program(), small_bundle, "a", "--seed", "3", "--save-state", saved]
        with subprocess.Popen(
            [*command, "--max-new-tokens", "1000000000"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            first = process.stdout.read(100)
            process.send_signal(number)
            assert process.stderr is not None
            rest, errors = process.stdout.read(), process.stderr.read()
        assert process.returncode == status
        assert errors == b"\nStopped.\n"
        written = (first + rest).decode().removesuffix("\n")
        assert written[:2_000] == whole[: len(written)][:2_000]
        session = load(small_bundle, "native").restore(saved)
        assert session.position == len(written)


@pytest.mark.parametrize("option", ["--file", "--learn-from"])
def test_a_signal_stops_it_while_it_reads(option: str, tmp_path: Path) -> None:
    """A long prompt is read up to some token; a half-learned text is not learned."""
    long, saved = tmp_path / "long.txt", tmp_path / "saved"
    long.write_text("To be, or not to be: " * 500_000, encoding="utf-8")
    with subprocess.Popen(
        [program(), SHIPPED, option, long, "--save-state", saved],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        time.sleep(2)
        process.send_signal(signal.SIGTERM)
        text, errors = process.communicate()
    assert (process.returncode, text, errors) == (143, b"", b"\nStopped.\n")
    session = load(SHIPPED, "native").restore(saved)
    assert session.position < 10_000_000
    assert session.position == 0 or option == "--file"
    assert rillet_run(SHIPPED, "--load-state", saved, "so ", "--max-new-tokens", 3).returncode == 0


@pytest.mark.parametrize("option", ["--file", "--learn-from", "--load-state", "--save-state"])
def test_refuses_a_file_without_a_name(option: str, small_bundle: Path) -> None:
    run = rillet_run(small_bundle, option, "")
    assert (run.returncode, run.stderr) == (2, f"Error: {option} is empty; give a file\n".encode())


def test_a_signal_stops_it_while_it_waits_for_its_prompt(
    small_bundle: Path, tmp_path: Path
) -> None:
    """What was read of the prompt may end within a character, and is not complained of."""
    earlier, saved = tmp_path / "earlier", tmp_path / "saved"
    begun = rillet_run(small_bundle, "a", "--max-new-tokens", 5, "--save-state", earlier)
    assert begun.returncode == 0
    with subprocess.Popen(
        [program(), small_bundle, "-", "--load-state", earlier, "--save-state", saved],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        process.stdin.write("é".encode()[:1])
        process.stdin.flush()
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        assert process.stderr is not None
        assert process.stderr.read() == b"\nStopped.\n"
    before, after = (load(small_bundle, "native").restore(path) for path in (earlier, saved))
    assert after.position <= before.position + 1


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_says_that_its_help_cannot_be_written(option: str) -> None:
    with open("/dev/full", "w") as full:
        run = subprocess.run([program(), option], stdout=full, stderr=subprocess.PIPE, check=False)
    assert (run.returncode, run.stderr) == (
        1,
        b"Error: standard output: No space left on device\n",
    )


def test_a_reader_that_goes_away_ends_it_and_it_saves(small_bundle: Path, tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    command = [
        program(),
        small_bundle,
        "a",
        "--max-new-tokens",
        "1000000000",
        "--save-state",
        saved,
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read(50)
        process.stdout.close()
        assert process.wait() == 1
    assert load(small_bundle, "native").restore(saved).position > 10


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_says_that_its_text_cannot_be_written(small_bundle: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        result = subprocess.run(
            [program(), small_bundle, "a"], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert result.returncode == 1
    assert result.stderr == b"Error: standard output: No space left on device\n"


# Refusals.


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ([], 2, "there is no BUNDLE"),
        (["B", "a", "b"], 2, "put the prompt in quotes"),
        (["B", "--top-n", "3"], 2, "no option --top-n"),
        (["B", "--top-k"], 2, "--top-k needs a value"),
        (["B", "--top-k", "x"], 2, "top_k is x; it must be a whole number"),
        (["B", "--top-k=-1"], 2, "top_k is -1"),
        (["B", "--temperature", "-1"], 2, "temperature is -1; it must be 0 (greedy) or above"),
        (["B", "--temperature", "nan"], 2, "temperature is nan; it must be a finite number"),
        (["B", "--temperature", "1e999"], 2, "temperature is 1e999; it must be a finite number"),
        (["B", "--top-p", "0"], 2, "top_p is 0; it must lie above 0"),
        (["B", "--min-p", "1.5"], 2, "min_p is 1.5; it must lie between 0 and 1"),
        (["B", "--seed", "18446744073709551616"], 2, "seed is 18446744073709551616"),
        (["B", "--stop", ""], 2, "each must be a non-empty text"),
        (["B", "--learn", "some"], 2, "learn is 'some'; it must be one of read, all, none"),
        (["B", "a", "--file", "b"], 2, "give one of them"),
        (["B", "a\udcff"], 2, "the text has the byte 0xff, which is not UTF-8"),
        (["B", "-f", "missing"], 1, "missing does not exist; give a text file"),
        (["B", "-f", "B"], 1, "is a folder; give a text file"),
        (["B", "--load-state", "missing"], 1, "missing does not exist; give a file that"),
        (["B", "--load-state", "B/tokenizer.json"], 1, "cannot be restored"),
        (["B", "--save-state", "B"], 1, "is a folder; choose the path of a file"),
        (["B", "--save-state", "no/s"], 1, "cannot be written (No such file or directory)"),
        (
            ["B", "--no-memory", "--learn-from", "B/tokenizer.json"],
            2,
            "the session has --no-memory",
        ),
        (["missing"], 1, "missing is not a folder; give the folder that `rillet export` wrote"),
        (["."], 1, "is not a bundle: it has no bundle.json"),
    ],
)
def test_refuses_and_says_why(
    arguments: list[str], status: int, said: str, small_bundle: Path, tmp_path: Path
) -> None:
    shutil.copytree(small_bundle, tmp_path / "B")
    words = [os.fsencode(word) for word in arguments]
    result = subprocess.run([program(), *words], cwd=tmp_path, capture_output=True, check=False)
    assert result.returncode == status
    assert result.stderr.splitlines()[-1].startswith(b"Error: ")
    assert said in result.stderr.decode()
    assert not list(tmp_path.glob(".*"))  # nothing is left behind


def change(folder: Path, edit: Callable[[dict[str, object]], object]) -> None:
    """Change a manifest, with the checksum that fits."""
    path = folder / "bundle.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    edit(manifest)
    manifest["checksum"] = checksum(manifest)
    path.write_text(json.dumps(manifest, ensure_ascii=False), encoding="utf-8")


@pytest.mark.parametrize(
    "name", ["weights.safetensors", "tokenizer.json", "generation_config.json"]
)
def test_refuses_a_file_that_was_changed(name: str, small_bundle: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(small_bundle, tmp_path / "B"))
    (folder / name).write_bytes((folder / name).read_bytes() + b" ")
    result = rillet_run(folder)
    assert result.returncode == 1
    assert f"{name} is damaged or was changed: its SHA-256" in result.stderr.decode()
    (folder / name).unlink()
    assert f"{name} is missing" in rillet_run(folder).stderr.decode()


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda m: m.update(format_version="2.0"), 'has format version "2.0"'),
        (lambda m: m.update(format="other"), "is not the manifest of a rillet bundle"),
        (
            lambda m: m["files"].pop("weights.safetensors"),
            "lacks the weights for the native engine",
        ),
        (lambda m: m["state"].reverse(), "are of another model than the graphs"),
        (lambda m: m.pop("weights_sha256"), "has no weights_sha256"),
    ],
)
def test_refuses_a_manifest_of_another_kind(
    edit: Callable[[dict[str, object]], object], said: str, small_bundle: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(small_bundle, tmp_path / "B"))
    change(folder, edit)
    result = rillet_run(folder)
    assert (result.returncode, said in result.stderr.decode()) == (1, True), result.stderr


def test_reads_a_manifest_of_any_text(small_bundle: Path, tmp_path: Path) -> None:
    """Its checksum is of its values, however they are written."""
    folder = Path(shutil.copytree(small_bundle, tmp_path / "B"))
    change(
        folder,
        lambda m: m.update({"é": ['😀\u007f\u0000\n"\\', -1.5e-07, None, {"b": 1, "a": {}}]}),
    )
    assert rillet_run(folder).returncode == 0
    path = folder / "bundle.json"
    path.write_text(
        path.read_text(encoding="utf-8").replace("1.5e-07", "2.5e-07"), encoding="utf-8"
    )
    result = rillet_run(folder)
    assert "its checksum does not match its content" in result.stderr.decode()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("repetition_penalty", 1.1),
        ("bad_words", ["a"]),
        ("typical_p", 0.9),
        ("epsilon_cutoff", 0.1),
        ("eta_cutoff", 0.1),
        ("penalty_window", 3),
        ("no_repeat_ngram_size", 3),
        ("min_new_tokens", 1),
        ("max_time", 9.5),
        ("stop_token_ids", [1]),
        ("include_stop", True),
        ("json_schema", {"type": "boolean"}),
    ],
)
def test_refuses_a_stream_that_samples_in_ways_that_it_lacks(
    option: str, value: object, small_bundle: Path, tmp_path: Path
) -> None:
    session = load(small_bundle, "native").session()
    next(session.tokens(**{option: value}, max_new_tokens=9))
    session.save(tmp_path / "saved")
    result = rillet_run(small_bundle, "--load-state", tmp_path / "saved")
    assert result.returncode == 1
    assert f"samples with {option}, which rillet-run lacks" in result.stderr.decode()


def test_refuses_a_stream_of_another_model(small_bundle: Path, tmp_path: Path) -> None:
    session = load(SHIPPED, "native").session()
    session.feed("a")
    session.save(tmp_path / "saved")
    result = rillet_run(small_bundle, "--load-state", tmp_path / "saved")
    assert result.returncode == 1
    assert "cannot be restored" in result.stderr.decode()


def test_a_saved_stream_replaces_what_a_link_points_to(small_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "real").chmod(0o640)
    assert rillet_run(small_bundle, "a", "--save-state", tmp_path / "link").returncode == 0
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").stat().st_mode & 0o777 == 0o640
    load(small_bundle, "native").restore(tmp_path / "real")

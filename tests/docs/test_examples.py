"""The scripts in examples/, run as their readers run them, on the shipped models."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from rillet.runtime import Bundle, load

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
NANO = ROOT / "models" / "shakespeare-nano"


def command(script: str, *arguments: object) -> list[str]:
    return [sys.executable, str(EXAMPLES / script), *map(str, arguments)]


def run(script: str, *arguments: object, given: str = "") -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        command(script, *arguments), input=given, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result


def test_each_is_short_and_listed_with_its_command() -> None:
    listing = (EXAMPLES / "README.md").read_text()
    for script in SCRIPTS:
        # Tokens of several letters make the keyboard's search a long one.
        most = 180 if script.name == "keyboard.py" else 100
        assert len(script.read_text().splitlines()) < most, script.name
        assert f"python examples/{script.name} " in listing
    assert "look_inside.ipynb" in listing
    assert "javascript" in listing


@pytest.mark.parametrize("script", [path.name for path in SCRIPTS if "train" not in path.name])
def test_help(script: str) -> None:
    help_text = run(script, "--help").stdout
    assert "bundle" in help_text
    assert f"python examples/{script} models/shakespeare-nano" in help_text  # a command to copy


def test_an_error_is_a_sentence(tmp_path: Path) -> None:
    failed = subprocess.run(
        command("power_down.py", tmp_path, "state"), capture_output=True, text=True, check=False
    )
    assert failed.returncode == 1
    assert failed.stderr.startswith("Error: ")
    assert "Traceback" not in failed.stderr


@pytest.mark.slow
def test_train_on_notes(text: str, tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text(text[:20_000])
    bundle = tmp_path / "my-model"
    options = ["--steps", 2, "--parity-steps", 100, "--length", 60, "--seed", 5]
    result = run("train_on_notes.py", notes, bundle, "--prompt", "The ", *options)
    assert "step 2 of 2: loss" in result.stderr
    assert Bundle.open(bundle).manifest["training"]["steps"] == 2
    # The bundle generates the same text.
    wanted = load(bundle).generate("The ", max_new_tokens=60, seed=5)
    assert result.stdout == f"The {wanted}\n"


def test_autocomplete_from_a_pipe() -> None:
    shown = run("autocomplete.py", NANO, given="ROM\b\b\tx").stdout.splitlines()
    assert shown[:3] == ["'R' + 'omeo'", "'RO' + 'MEO:'", "'ROM' + 'EO:'"]
    # Deleting a letter restores the stream: the suggestions repeat.
    assert shown[3:5] == [shown[1], shown[0]]
    assert shown[5].startswith("'Romeo' + ")
    assert shown[6].startswith("'Romeox' + ")


class Terminal:
    """A terminal that runs a program; its output is read as it appears."""

    def __init__(self, *arguments: str) -> None:
        self.own, other = pty.openpty()
        self.before = termios.tcgetattr(other)
        self.other = other
        self.program = subprocess.Popen(arguments, stdin=other, stdout=other, stderr=other)
        self.shown = ""

    def type(self, keys: str, until: str) -> str:
        """Type keys, and wait until the program has shown ``until``."""
        seen = len(self.shown)
        os.write(self.own, keys.encode())
        while until not in self.shown[seen:]:
            ready, _, _ = select.select([self.own], [], [], 120)
            assert ready, f"{until!r} never came after {self.shown!r}"
            self.shown += os.read(self.own, 1 << 16).decode()
        return self.shown[seen:]

    def close(self) -> None:
        self.program.kill()
        self.program.wait()
        os.close(self.own)
        os.close(self.other)


def test_autocomplete_in_a_terminal() -> None:
    terminal = Terminal(*command("autocomplete.py", NANO))
    try:
        # The suggestion is dimmed, and the cursor moves back over it.
        terminal.type("R", until="R\x1b[2momeo\x1b[0m\x1b[4D")
        assert not termios.tcgetattr(terminal.other)[3] & termios.ICANON  # key by key
        terminal.type("O", until="RO\x1b[2mMEO:\x1b[0m\x1b[4D")
        terminal.type("\t", until="ROMEO:\x1b[2m")  # Tab: taken
        terminal.type("\x1b[A", until="")  # an arrow types nothing
        assert "[A" not in terminal.type("\x7f", until="ROMEO\x1b[2m:\x1b[0m\x1b[1D")
        terminal.type("\r", until="\r\x1b[KROMEO\r\n")  # Enter: the line stays, undimmed
        terminal.type("I", until="I\x1b[2m")  # and the next begins
        os.write(terminal.own, b"\x04")
        assert terminal.program.wait(timeout=120) == 0
        assert termios.tcgetattr(terminal.other) == terminal.before  # restored
    finally:
        terminal.close()


def test_many_streams(tmp_path: Path) -> None:
    result = run("many_streams.py", NANO, "--streams", 40, "--at-once", 16, "--length", 20)
    made = sorted(map(json.loads, result.stdout.splitlines()), key=lambda line: line["stream"])
    assert [line["stream"] for line in made] == list(range(40))
    assert re.search(r"40 streams, 720 tokens in \d+ steps of at most 16 streams", result.stderr)
    # Each text is what its stream generates alone.
    model = load(NANO, self_test=False)
    for line in made:
        length = 20 - line["stream"] % 5
        alone = model.generate(line["prompt"], max_new_tokens=length, seed=line["seed"])
        assert line["text"] == alone
    assert len({line["text"] for line in made}) > 30


def test_many_streams_with_own_prompts(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("My name is \nYour name is \n")
    result = run("many_streams.py", NANO, "--streams", 3, "--prompts", prompts, "--length", 8)
    made = {line["stream"]: line["prompt"] for line in map(json.loads, result.stdout.splitlines())}
    assert made == {0: "My name is ", 1: "Your name is ", 2: "My name is "}


def test_power_down(tmp_path: Path) -> None:
    """Stopped twice in mid-sentence, the text is what it would have been."""
    whole = run("power_down.py", NANO, tmp_path / "never", "--length", 240, "--seed", 3).stdout
    state = tmp_path / "romeo.state"
    again = command("power_down.py", NANO, state, "--length", 240, "--seed", 3, "--rate", 400)
    parts: list[str] = []
    for kill_after in (60, 70):
        program = subprocess.Popen(again, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert program.stdout is not None
        assert program.stderr is not None
        begun = program.stdout.read(kill_after)
        program.send_signal(signal.SIGTERM)
        # Not with communicate(), which would lose what this stream has buffered.
        rest, said = program.stdout.read(), program.stderr.read()
        assert program.wait() == 0
        assert "saved at token" in said
        assert state.is_file()
        parts.append(begun + rest)
        assert len("".join(parts)) < len(whole)  # it was stopped, and did not just end
    last = subprocess.run(again, capture_output=True, text=True, check=True)
    assert "resuming at token" in last.stderr
    assert "".join(parts) + last.stdout == whole
    assert not list(tmp_path.iterdir())  # done: nothing is left to go on with


def odd_log() -> tuple[str, int]:
    """A log of a quiet service, and the number of its one odd line."""
    users = ("alice", "bob", "carol", "dave", "erin")
    lines = []
    for index in range(90):
        user = users[index * 7 % 5]
        what = (
            f"session opened for user {user}",
            f"request from {user} answered in {index * 37 % 90 + 10} ms",
            f"session closed for user {user}",
        )[index % 3]
        lines.append(f"Nov 25 10:{index % 60:02}:07 service: {what}")
    lines[66] = "Nov 25 10:06:41 kernel: out of memory, killed process postgres"
    return "\n".join(lines) + "\n", 67


def test_anomaly_score(tmp_path: Path) -> None:
    text, odd = odd_log()
    log = tmp_path / "service.log"
    log.write_text(text)
    found = run("anomaly_score.py", NANO, log, "--top", 3).stdout.splitlines()
    score, bits, number, line = found[0].split("\t")
    assert int(number) == odd
    assert line == text.splitlines()[odd - 1]
    assert len(found) == 3
    # It is first by a wide margin.
    assert float(score) > 2 * float(found[1].split("\t")[0])
    assert float(bits) > float(score)
    assert run("anomaly_score.py", NANO, "--top", 3, given=text).stdout.splitlines() == found
    by_place = run("anomaly_score.py", NANO, log, "--top", 3, "--places", 2).stdout
    assert odd in [int(each.split("\t")[2]) for each in by_place.splitlines()]


def test_anomaly_score_without_numbers(tmp_path: Path) -> None:
    """No number makes a line odd, and the lines are shown as they are."""
    lines = [f"request {index * 7919 % 100_003} took 7 ms" for index in range(60)]
    lines[40] = "request 999999999999999 took 7 ms"
    lines[50] = "request denied"
    log = tmp_path / "service.log"
    log.write_text("\n".join(lines) + "\n")
    bundle = ROOT / "models" / "bible-nano"
    found = run("anomaly_score.py", bundle, log, "--top", 60, "--mask-digits").stdout.splitlines()
    rows = {int(number): (float(score), line) for score, _, number, line in map(tabs, found)}
    assert found[0].endswith("\t51\trequest denied")
    assert rows[41][1] == lines[40]
    assert abs(rows[41][0]) < 0.05
    alone = run("anomaly_score.py", bundle, log, "--top", 1, "--mask-digits", "--window", 0).stdout
    score, bits, *_ = tabs(alone)
    assert score == f"+{bits}"


def tabs(line: str) -> list[str]:
    return line.split("\t")


DIARY = """\
Monday. Walked to the mill with Annelore and her brother Tibalt.
The heron was on the weir again. Annelore says it is the same heron as last year.
Wednesday. Rain. Tibalt mended the pump, and it leaks at the flange still.
Annelore wrote to the council about the weir. Soup with lovage.
Friday. The heron was not on the weir. Tibalt has ordered a new flange for the pump.
"""

LATER = """\
Sunday. Walked to the mill with Tibalt. The heron was on the weir again, says Annelore.
Tuesday. The new flange for the pump came. Tibalt mended the pump, and it leaks still.
Thursday. The council wrote to Annelore about the weir. Soup with lovage again.
"""


def test_learns_its_user(tmp_path: Path) -> None:
    diary = tmp_path / "diary.txt"
    diary.write_text(DIARY + LATER)
    figures = json.loads(run("learns_its_user.py", NANO, diary, "--json").stdout)
    assert figures["after"] < 0.9 * figures["before"]
    # The memory has learned; the position in the text is not the reason.
    assert figures["after, memory off"] > 1.1 * figures["after"]
    shown = run("learns_its_user.py", NANO, diary).stdout
    assert f"after reading                    {figures['after']:.3f}" in shown


def test_keyboard(tmp_path: Path) -> None:
    """Having read the names, it saves more keys."""
    older, newer = tmp_path / "older.txt", tmp_path / "newer.txt"
    older.write_text(DIARY)
    newer.write_text(LATER)

    def saved(*options: object) -> float:
        shown = run("keyboard.py", NANO, newer, *options).stdout
        match = re.fullmatch(r"([\d.]+)% of (\d+) keystrokes saved, [\d.]+ ms a key\n", shown)
        assert match is not None, shown
        assert int(match[2]) == len(LATER)
        return float(match[1])

    assert 10 < saved() < saved("--read", older) < 80


def test_compress(tmp_path: Path) -> None:
    text = "The quality of mercy is not strained.\n" * 8
    play, small, again = (tmp_path / name for name in ("play.txt", "play.small", "again.txt"))
    play.write_text(text)
    shown = run("compress.py", NANO, play, small).stdout
    assert shown == f"{len(text)} bytes became {small.stat().st_size}\n"
    run("compress.py", NANO, small, again, "--decompress")
    assert again.read_bytes() == play.read_bytes()
    # What repeats is learned.
    plain = tmp_path / "plain.small"
    run("compress.py", NANO, play, plain, "--no-memory")
    assert small.stat().st_size < 0.6 * plain.stat().st_size < len(text)
    run("compress.py", NANO, plain, again, "--decompress")
    assert again.read_bytes() == play.read_bytes()


@pytest.mark.parametrize("content", [b"", b"short", b"a text that nobody compressed, as it is."])
def test_compress_refuses_what_is_not_compressed(tmp_path: Path, content: bytes) -> None:
    text, out = tmp_path / "text.txt", tmp_path / "out.txt"
    text.write_bytes(content)
    for source in (text, tmp_path / "missing"):
        refused = subprocess.run(
            command("compress.py", NANO, source, out, "--decompress"),
            capture_output=True,
            text=True,
            check=False,
        )
        assert refused.returncode == 1
        assert refused.stderr.startswith("Error: ")
        assert not out.exists()


def test_compress_says_what_it_cannot(tmp_path: Path) -> None:
    digits, small = tmp_path / "digits.csv", tmp_path / "small"
    digits.write_text("1,2,3\n")
    refused = subprocess.run(
        command("compress.py", NANO, digits, small), capture_output=True, text=True, check=False
    )
    assert refused.returncode == 1
    assert refused.stderr.startswith("Error: the file has characters that the model does not know")
    assert not small.exists()
    digits.write_text("one, two\n")
    run("compress.py", NANO, digits, small)
    packed = bytearray(small.read_bytes())
    packed[13] ^= 1  # the checksum
    small.write_bytes(packed)
    refused = subprocess.run(
        command("compress.py", NANO, small, digits, "--decompress"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 1
    assert "damaged" in refused.stderr
    assert digits.read_text() == "one, two\n"


CHECK = """
figures = [plt.figure(number) for number in plt.get_fignums()]
images = [axes.images[0].get_array() for f in figures for axes in f.axes if axes.images]
assert (images[0] == inside.waves.T).all()
assert images[1].shape == (inside.attention.shape[2], len(inside.pieces))
assert np.allclose(inside.attention.sum(2), 1, atol=1e-5)
assert (images[2] == inside.reservoir.T).all()
assert images[3].shape == picture.shape
assert path.shape == (len(inside.pieces), 2)
titles = [axes.get_title() for f in figures for axes in f.axes]
assert sum(word in " ".join(titles) for word in ("waves", "attention", "reservoir")) == 3
print("costs", *costs)
"""


def test_notebook(tmp_path: Path) -> None:
    """Its cells run in order, in its folder; it is stored without their output."""
    cells = json.loads((EXAMPLES / "look_inside.ipynb").read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) >= 5
    for cell in code:
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
    program = "\n\n".join("".join(cell["source"]) for cell in code) + CHECK
    before = sorted(EXAMPLES.iterdir())
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        cwd=EXAMPLES,
        env={**os.environ, "MPLBACKEND": "Agg", "MPLCONFIGDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert sorted(EXAMPLES.iterdir()) == before
    first, *later = map(float, result.stdout.splitlines()[-1].split()[1:])
    assert max(later) < 0.6 * first  # the name is learned, as the notebook says

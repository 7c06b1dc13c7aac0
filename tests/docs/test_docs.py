"""The code and commands of README and docs run as they stand there."""

from __future__ import annotations

import re
import shlex
import shutil
import textwrap
from pathlib import Path

import pytest

from support.command_line import here, rillet

ROOT = Path(__file__).parents[2]
BLOCKS = [
    (file.name, index, code)
    for file in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for index, code in enumerate(re.findall(r"```python\n(.*?)```", file.read_text(), re.DOTALL))
    if "127.0.0.1:8080" not in code  # tests/serve has the server
]


def trains_long(code: str) -> bool:
    """Whether a block trains a model of full size for its 100 steps."""
    return "steps=100" in code


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(code, id=f"{name} {number}", marks=[pytest.mark.slow] * trains_long(code))
        for name, number, code in BLOCKS
    ],
)
def test_python_blocks_run(
    code: str,
    small_bundle: Path,
    small_run: Path,
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "my-model").symlink_to(small_bundle)
    (tmp_path / "my-run").symlink_to(small_run)
    (tmp_path / "models").symlink_to(ROOT / "models")
    (tmp_path / "my-notes.txt").write_text(text[:2_400])
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "a block of the page", "exec"), {"__name__": "__main__"})  # noqa: S102


SHIPPED = sorted(path.parent for path in (ROOT / "models").glob("*/bundle.json"))
WITH_GRAPHS = [bundle for bundle in SHIPPED if (bundle / "decode.onnx").is_file()]
PORTABLE = [code for name, _, code in BLOCKS if "InferenceSession(" in code]


@pytest.mark.parametrize("bundle", WITH_GRAPHS, ids=lambda path: path.name)
def test_blocks_without_rillet_run_on_every_shipped_bundle(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step and the check of a port, also where int8 chooses another token than PyTorch."""
    (tmp_path / "my-model").symlink_to(bundle)
    monkeypatch.chdir(tmp_path)
    for code in PORTABLE:
        exec(compile(code, "a block of the page", "exec"), {"__name__": "__main__"})  # noqa: S102


def test_the_step_in_javascript_is_that_of_the_example() -> None:
    page = (ROOT / "docs" / "embedding.md").read_text()
    (shown,) = re.findall(r"```javascript\n(.*?)```", page, re.DOTALL)
    example = (ROOT / "examples" / "javascript" / "generate.js").read_text()
    assert textwrap.indent(shown, "  ") in example


def test_there_are_blocks() -> None:
    assert {name for name, _, _ in BLOCKS} >= {"README.md", "bundle.md", "training.md"}
    assert len(PORTABLE) == 2
    assert any(path.name.endswith("int8") for path in WITH_GRAPHS)
    assert 0 < sum(trains_long(code) for _, _, code in BLOCKS) < len(BLOCKS) / 2


def test_the_readme_opens_with_the_text_its_command_writes() -> None:
    page = (ROOT / "README.md").read_text()
    command, sample = re.findall(r"```(?:sh\nrillet |text\n)(.*?)\n```", page, re.DOTALL)[:2]
    assert rillet(*shlex.split(command), cwd=ROOT).stdout.strip() == sample


def test_links_lead_somewhere() -> None:
    for file in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", file.read_text()):
            assert (file.parent / target).exists(), f"{file.name} links to {target}"


def shell_lines(file: Path) -> list[str]:
    """The arguments of each ``rillet`` command that a page shows, in order."""
    return [
        line.removeprefix("rillet ")
        for block in re.findall(r"```sh\n(.*?)```", file.read_text(), re.DOTALL)
        for line in block.splitlines()
        if line.startswith("rillet ")
    ]


COMMANDS = sorted(
    {
        command
        for file in (ROOT / "README.md", ROOT / "models" / "README.md")
        for command in shell_lines(file)
        if re.match(r"(generate|verify) models/", command)
    }
)


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(command, marks=pytest.mark.slow if command.startswith("verify") else ())
        for command in COMMANDS
    ],
)
def test_commands_on_shipped_models_run(command: str) -> None:
    result = here(*shlex.split(command), cwd=ROOT)
    assert result.returncode == 0, result.stderr
    assert result.stdout


def test_there_are_commands() -> None:
    assert len(COMMANDS) >= 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "least"), [("runtime.md", 6), ("precisions.md", 2), ("training.md", 1)]
)
def test_commands_on_a_model_of_ones_own_run(
    page: str, least: int, small_bundle: Path, small_run: Path, text: str, tmp_path: Path
) -> None:
    """Each command of a page, in order, in a folder with the files that they name."""
    shutil.copytree(small_bundle, tmp_path / "my-model")
    if page != "training.md":
        (tmp_path / "run").symlink_to(small_run)
    for name in ("my-notes.txt", "notes.txt", "text.txt"):
        (tmp_path / name).write_text(text[:9_000], encoding="utf-8")
    lines = shell_lines(ROOT / "docs" / page)
    # What only a shell can do, <(command), is tested with pipes: tests/train/test_train_command.py.
    commands = [shlex.split(line, comments=True) for line in lines if "<(" not in line]
    assert len(commands) >= least
    for command in commands:
        short = {"train": ["--steps", "2", "--no-plot"], "bench": ["--repetitions", "1"]}
        result = here(*command, *short.get(command[0], []), cwd=tmp_path)
        assert result.returncode == 0, f"rillet {command}\n{result.stderr}"
        assert result.stdout or "--interactive" in command


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_own_text_becomes_a_generator_as_the_page_says(
    page: str, text: str, tmp_path: Path
) -> None:
    """Train, export, verify, generate: the page's commands in turn, with fewer training steps."""
    commands = [line for line in shell_lines(ROOT / page) if "models/" not in line]
    names = [command.split()[0] for command in commands[:4]]
    assert names == ["train", "export", "verify", "generate"]
    (tmp_path / "my-notes.txt").write_text(text[:6_000], encoding="utf-8")
    for command in commands:
        short = ["--steps", "4"] if command.startswith("train ") else []
        result = rillet(*shlex.split(command), *short, cwd=tmp_path)
        assert result.returncode == 0, f"rillet {command}\n{result.stderr}"
        assert result.stdout

"""Who imports whom: the order on docs/architecture.md, and what the device never loads."""

from __future__ import annotations

import importlib
import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from check_architecture import PAGE, PROJECT, ROOT, check, read_rules

RULES = read_rules((ROOT / PAGE).read_text(encoding="utf-8"))
PACKAGES = tuple(RULES[PROJECT].ranks)
FOLDERS = sorted(
    {file.parent.relative_to(ROOT) for name in PACKAGES for file in (ROOT / name).rglob("*.py")}
)

BLOCK = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "onnx", "onnxscript", "tqdm"):
            raise AssertionError("imported " + name)

sys.meta_path.insert(0, Refuse())
"""


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BLOCK + code, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def module_names(package: str) -> list[str]:
    """Every module of a package and its folders, ``__main__`` aside: importing that runs it."""
    name = f"{PROJECT}.{package}"
    found = pkgutil.walk_packages(importlib.import_module(name).__path__, f"{name}.")
    return [name, *(module.name for module in found if not module.name.endswith("__main__"))]


# What runs.


def test_the_runtime_never_imports_torch_or_onnx(small_bundle: Path) -> None:
    """Not when its modules are imported, not when it generates."""
    names = module_names("runtime")
    assert len(names) > 40
    code = "import importlib\n"
    code += "".join(f"importlib.import_module({name!r})\n" for name in names)
    code += (
        "import rillet.runtime\n"
        "print(rillet.runtime.load(sys.argv[1]).generate('The', max_new_tokens=5, seed=1))\n"
        "assert not {'torch', 'onnx'} & set(sys.modules)\n"
    )
    result = run(code, str(small_bundle))
    assert result.returncode == 0, result.stderr
    assert len(result.stdout) > 3


def test_the_block_itself_works() -> None:
    assert "imported torch" in run("import torch").stderr


def test_generate_needs_no_torch(small_bundle: Path) -> None:
    code = "from rillet.runtime.cli import main; main(sys.argv[1:])"
    for arguments in (
        ["generate", str(small_bundle), "The", "--max-new-tokens", "5"],
        ["verify", str(small_bundle)],
        ["--help"],
    ):
        result = run(code, *arguments)
        assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_exist(package: str) -> None:
    for name in module_names(package):
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as missing:
            # An adapter's package; `make integrations` installs them.
            if package != "integrations" or str(missing.name).startswith(PROJECT):
                raise
            continue
        for public in getattr(module, "__all__", []):
            assert hasattr(module, public), f"{name}.{public}"


# What the sources say.


def test_the_tree_keeps_the_rules() -> None:
    violations = check(ROOT)
    assert not violations, "\n".join(violations)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the page and the sources, to break."""
    (tmp_path / PAGE).parent.mkdir()
    shutil.copy(ROOT / PAGE, tmp_path / PAGE)
    for name in PACKAGES:
        shutil.copytree(
            ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "*.typed")
        )
    return tmp_path


FORMS = (
    "from {module} import {name}",
    "import {module}.{name}",
    "def f():\n    from {module} import {name}",
    "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import {module}.{name}",
    "import importlib\nimportlib.import_module('{module}.{name}')",
)
"""Each way to write an import; none hides it."""


def break_folders(tree: Path, modules: dict[Path, str]) -> dict[Path, str]:
    """Write modules; what the check then says about each."""
    for path, code in modules.items():
        (tree / path).write_text(code)
    found = [text for text in check(tree) if Path(text.partition(":")[0]) in modules]
    messages = {Path(text.partition(":")[0]): text for text in found}
    assert set(messages) == set(modules)
    assert len(messages) == len(found)  # each is named once
    return messages


def test_an_import_back_between_packages_is_found_in_any_folder(tree: Path) -> None:
    inner = [folder for folder in FOLDERS if folder.parts[0] != "export"]
    assert len(inner) >= 15
    modules = {
        folder / f"wrong_{number}.py": form.format(module="rillet.export", name="api")
        for folder in inner
        for number, form in enumerate(FORMS)
    }
    for message in break_folders(tree, modules).values():
        assert "imports export.api, and in rillet/ " in message


def test_an_import_to_the_right_is_found_in_any_folder(tree: Path) -> None:
    modules = {}
    for package, name in (("runtime", "entry"), ("train", "train"), ("export", "export")):
        inner = [folder for folder in FOLDERS if folder.parts[0] == package][1:]
        inner.remove(Path(package, "cli"))
        for folder in inner:
            for number, form in enumerate(FORMS):
                code = form.format(module=f"rillet.{package}.cli", name=name)
                modules[folder / f"wrong_{number}.py"] = code
    for path, message in break_folders(tree, modules).items():
        assert message.endswith(f"{path.parts[1]} may not import cli")


def test_neighbours_on_one_line_do_not_import_each_other(tree: Path) -> None:
    (tree / "runtime" / "engines" / "wrong.py").write_text("from ..sampling import params\n")
    expected = "runtime/engines/wrong.py:1: imports runtime.sampling.params"
    assert any(text.startswith(expected) for text in check(tree))


def test_a_cycle_inside_any_folder_is_found(tree: Path) -> None:
    for folder in FOLDERS:
        (tree / folder / "cycle_a.py").write_text("from . import cycle_b\n")
        (tree / folder / "cycle_b.py").write_text("def f():\n    from .cycle_a import x\n")
    messages = check(tree)
    for folder in FOLDERS:
        a, b = (f"{folder}/{name}".replace("/", ".") for name in ("cycle_a", "cycle_b"))
        assert f"{folder}/cycle_a.py:1: import cycle: {a} -> {b} -> {a}" in messages


def test_a_forbidden_library_is_found_in_any_folder(tree: Path) -> None:
    modules = {
        folder / f"wrong_{library}.py": f"def f():\n    import {library}.utils\n"
        for folder in FOLDERS
        for library in RULES[folder.parts[0]].forbidden
    }
    for path, message in break_folders(tree, modules).items():
        library = path.stem.removeprefix("wrong_")
        assert message.endswith(f"imports {library}, which {path.parts[0]}/ never does")


def test_a_module_without_a_place_is_found(tree: Path) -> None:
    (tree / "train" / "adrift.py").touch()
    (tree / "export" / "lost").mkdir()
    (tree / "export" / "lost" / "module.py").touch()
    (tree / "runtime" / "bench.py").unlink()
    messages = check(tree)
    assert f"{PAGE}:1: train/adrift has no line in the block of rules" in messages
    assert f"{PAGE}:1: export/lost has no line in the block of rules" in messages
    gone = f"{PAGE}:1: the block of rules names runtime/bench, which does not exist"
    assert gone in messages


def test_the_order_is_the_page_s(tree: Path) -> None:
    """Two lines that change places on the page change what is allowed."""
    text = (tree / PAGE).read_text()
    before = check(tree)
    (tree / PAGE).write_text(text.replace("    bench ", "    BUNDLE ", 1)
                             .replace("    bundle\n", "    bench\n", 1)
                             .replace("    BUNDLE ", "    bundle ", 1))  # fmt: skip
    new = set(check(tree)) - set(before)
    assert any(text.startswith("runtime/engines/ort/sessions.py") for text in new), new
    (tree / PAGE).write_text(text.replace("```text", "```"))
    with pytest.raises(ValueError, match="has no ```text block"):
        check(tree)


def test_the_picture_shows_what_the_page_orders() -> None:
    picture = (ROOT / "docs" / "images" / "architecture.svg").read_text()
    shown = set(
        re.findall(r"[\w.]+", re.sub(r"<style>.*</style>|<[^>]*>", " ", picture, flags=re.S))
    )
    for package in PACKAGES:
        folders = {name for name in RULES[package].ranks if (ROOT / package / name).is_dir()}
        assert folders | {package} <= shown, f"{package}: {folders - shown}"


def test_the_page_names_files_that_exist() -> None:
    page = (ROOT / PAGE).read_text(encoding="utf-8")
    paths = re.findall(r"`((?:runtime|train|export|benchmarks|scripts|tests)/[\w/.]*)`", page)
    assert len(paths) > 30
    for path in paths:
        assert (ROOT / path).exists(), f"{PAGE} names {path}"


def test_the_command_reports_and_fails(tree: Path) -> None:
    (tree / "runtime" / "streams" / "wrong.py").write_text("from ..cli import entry\n")
    result = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "check_architecture.py"), "--root", str(tree)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 1
    assert "runtime/streams/wrong.py:1: imports runtime.cli.entry" in result.stdout

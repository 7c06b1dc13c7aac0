"""The device install, in a fresh virtual environment."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rillet.runtime import load
from support.command_line import here
from support.native import needs_native
from support.server import NANO, serving
from support.wheels import build, copy_source

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def interpreter(version: str) -> Path:
    """A Python of this version; ``newest`` is the newest here, if it is newer than ours."""
    if version == "newest":
        here = sys.version_info[1]
        newer = (_find(f"3.{minor}") for minor in range(here + 5, here, -1))
        return next(filter(None, newer), Path(sys.executable))
    python = _find(version)
    if python is None:
        pytest.skip(f"there is no Python {version} on this machine")
    return python


def _find(version: str) -> Path | None:
    found = shutil.which(f"python{version}")
    installed = Path.home().glob(f".pyenv/versions/{version}.*/bin/python")
    for path in (*([found] if found else []), *installed):
        code = "import sys, venv; print('%d.%d' % sys.version_info[:2])"
        answer = subprocess.run(
            [str(path), "-c", code], capture_output=True, text=True, check=False
        )
        if answer.stdout.strip() == version:
            return Path(path)
    return None


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that would be released."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    probe = [*pip, "download", "--quiet", "--no-deps", "--dest", str(folder / "probe"), "click"]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("no package index can be reached")
    return build(copy_source(folder / "source"), folder / "dist")[1]


@pytest.fixture(scope="module", params=["newest", "3.10"])
def device(
    request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A virtual environment with the wheel, ONNX Runtime, their dependencies and nothing else."""
    return installed(f"{wheel}[cpu]", interpreter(request.param), tmp_path_factory)


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel and what it requires: no engine but its own."""
    return installed(str(wheel), interpreter("newest"), tmp_path_factory)


def installed(package: str, python: Path, folders: pytest.TempPathFactory) -> Path:
    """The Python of a fresh environment with a package."""
    folder = folders.mktemp("device")
    subprocess.run([str(python), "-m", "venv", str(folder)], check=True)
    made = folder / "bin" / "python"
    install = [str(made), *["-m", "pip", "--disable-pip-version-check", "install", "--quiet"]]
    install += ["--constraint", str(ROOT / "constraints.txt"), package]
    result = subprocess.run(install, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return made


def run(python: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(python.parent / "rillet"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_cpu_extra_is_enough_to_generate(device: Path, small_bundle: Path) -> None:
    listing = [str(device), "-I", "-m", "pip", "list", "--format", "json"]
    packages = json.loads(subprocess.run(listing, capture_output=True, check=True).stdout)
    names = {package["name"].lower() for package in packages}
    assert {"rillet", "numpy", "tokenizers", "safetensors", "click", "onnxruntime"} <= names
    assert not names & {"torch", "onnx", "onnxscript"}
    # The engine chooses its own dependencies; these are ours.
    code = "import importlib.metadata as m, json; print(json.dumps(m.requires('rillet')))"
    # Isolated, since this folder may hold the metadata of an older editable install.
    metadata = subprocess.run(
        [str(device), "-I", "-c", code], capture_output=True, check=True
    ).stdout
    ours = {re.split(r"[^a-z]", entry)[0] for entry in json.loads(metadata) if "extra" not in entry}
    assert ours == {"click", "numpy", "safetensors", "tokenizers"}
    command = ["generate", small_bundle, "The ", "--max-new-tokens", 40, "--seed", 2]
    result = run(device, *command)
    assert result.returncode == 0, result.stderr
    assert result.stdout == here(*command).stdout
    assert run(device, "verify", small_bundle).returncode == 0


@needs_native
def test_the_wheel_alone_does_what_the_readme_shows(
    bare: Path, small_bundle: Path, tmp_path: Path
) -> None:
    code = """
import importlib.util, sys
assert importlib.util.find_spec("onnxruntime") is None
import rillet.runtime
model = rillet.runtime.load(sys.argv[1])
assert model.info.provider == "native"
session = model.session()
session.feed("The value of ")
text = session.generate(max_new_tokens=50, top_p=0.9, seed=1, stop=["zzz"])
session.learn("An expression is a list.")
session.save("diary.state")
rest = session.generate(max_new_tokens=30, seed=2)
assert model.restore("diary.state").generate(max_new_tokens=30, seed=2) == rest
print(text, end="")
"""
    program = tmp_path / "program.py"
    program.write_text(code)
    result = subprocess.run(
        [str(bare), str(program), str(small_bundle)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    session = load(small_bundle, "cpu").session()
    session.feed("The value of ")
    assert result.stdout == session.generate(max_new_tokens=50, top_p=0.9, seed=1, stop=["zzz"])
    command = ["generate", small_bundle, "The ", "--max-new-tokens", 40, "--seed", 2]
    assert run(bare, *command).stdout == here(*command).stdout
    checked = run(bare, "verify", small_bundle)
    assert checked.returncode == 0, checked.stderr
    report = run(bare, "doctor", small_bundle)
    assert "No problems found." in report.stdout, report.stdout
    assert run(bare, "score", small_bundle, program).returncode == 0


@needs_native
def test_the_serve_extra_is_enough_to_serve(
    wheel: Path, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    """Completions, and the page with every file that it names."""
    python = installed(f"{wheel}[serve]", interpreter("newest"), tmp_path_factory)
    program = [str(python.parent / "rillet")]
    with serving(tmp_path / "log", NANO, program=program) as server:
        page = server.ask("GET", "/").body.decode()
        names = re.findall(r'(?:href|src)="([a-z.]+)"', page)
        scripts = server.ask("GET", "/page.js").body.decode()
        names += re.findall(r'(?:from|fetch\() ?"(?:\./)?([a-z.]+)"', scripts)
        assert {"page.js", "style.css", "icon.svg", "engine.js", "notes.txt"} <= set(names)
        for name in names:
            assert server.ask("GET", f"/{name}").status == 200, name
        wish = {"prompt": "ROMEO:", "max_tokens": 60, "seed": 1}
        text = server.post("/v1/completions", wish).json["choices"][0]["text"]
    told = run(python, "generate", NANO, "ROMEO:", "--max-new-tokens", 60, "--seed", 1).stdout
    assert told == f"ROMEO:{text}\n"


def test_the_shipped_models_generate(device: Path) -> None:
    for bundle in sorted(path.parent for path in (ROOT / "models").glob("*/bundle.json")):
        assert run(device, "verify", bundle).returncode == 0, bundle.name
        result = run(device, "generate", bundle, "ROMEO:", "--max-new-tokens", 60, "--seed", 1)
        assert result.returncode == 0, result.stderr
        assert result.stdout.startswith("ROMEO:")
        assert len(result.stdout) > 50


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["train", "--corpus", "builtin:pydoc", "--out", "run"], "train"),
        (["export", "run", "--out", "bundle"], "export"),
        (["verify", "{bundle}", "--checkpoint", "run"], "export"),
    ],
)
def test_what_is_missing_is_named(
    device: Path, small_bundle: Path, arguments: list[str], extra: str
) -> None:
    result = run(device, *(part.format(bundle=small_bundle) for part in arguments))
    assert result.returncode == 1
    assert "which is not installed" in result.stderr
    assert f"pip install 'rillet[{extra}]'" in result.stderr
    assert "Traceback" not in result.stderr

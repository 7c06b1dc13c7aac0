"""The module for pages, web/: it says what Python says, in node and in Chromium."""

from __future__ import annotations

import base64
import gzip
import json
import os
import shutil
import subprocess
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rillet.runtime import Model, load
from support.native import needs_native

ROOT = Path(__file__).parents[2]
WEB = ROOT / "web"
NANO = ROOT / "models" / "shakespeare-nano"
BUNDLES = sorted(path.parent for path in (ROOT / "models").glob("*/bundle.json"))

pytestmark = needs_native


def _run(*command: str, cwd: Path = ROOT, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False, timeout=600, **options
    )


@pytest.fixture(scope="module")
def module() -> Path:
    """The module, built; skips where a tool is missing."""
    for tool, package in (("clang", "clang"), ("wasm-ld", "lld"), ("node", "nodejs")):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed: apt-get install {package}")
    lock = ROOT / "build" / "web.lock"
    lock.parent.mkdir(exist_ok=True)
    built = _run("flock", str(lock), "make", "web")
    assert built.returncode == 0, built.stderr
    return WEB / "dist"


@pytest.fixture(scope="module")
def packages(module: Path) -> Path:
    """The folder of npm's tools."""
    found = WEB / "node_modules" / ".bin"
    if not (found / "attw").exists():
        pytest.skip("npm's packages are not installed: make web-packages")
    return found


def say(bundle: Path, **request: Any) -> dict[str, Any]:
    """What the module makes of a request: web/test/say.js."""
    text = json.dumps({"bundle": str(bundle), **request})
    result = _run("node", "test/say.js", cwd=WEB, input=text)
    assert result.returncode == 0, result.stderr
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


def native(bundle: Path) -> Model:
    return load(bundle, provider="native")


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
@pytest.mark.parametrize("simd", [True, False], ids=["SIMD", "plain"])
def test_sampled_text_is_pythons(module: Path, bundle: Path, simd: bool) -> None:
    ours = native(bundle).generate(
        "And the ", max_new_tokens=300, temperature=0.8, top_k=30, top_p=0.95, min_p=0.01, seed=7
    )
    options = {"maxNewTokens": 300, "temperature": 0.8, "topK": 30, "topP": 0.95, "minP": 0.01}
    answer = say(bundle, simd=simd, text="And the ", options={**options, "seed": 7})
    assert answer["text"] == ours


def test_a_bundles_defaults_and_stop_strings(module: Path) -> None:
    ours = native(NANO).generate("ROMEO:\n", seed=3, stop=["\n\n", "KING"])
    answer = say(NANO, text="ROMEO:\n", options={"seed": 3, "stop": ["\n\n", "KING"]})
    assert answer["text"] == ours


def test_byte_pairs_are_read_as_python_reads_them(
    module: Path, byte_model: Model, taught_bundle: Path
) -> None:
    for bundle, text in ((byte_model.bundle.path, "naïve café 水 "), (taught_bundle, "The ")):
        ours = native(bundle).generate(text, max_new_tokens=60, temperature=0)
        answer = say(bundle, text=text, options={"maxNewTokens": 60, "temperature": 0})
        assert answer["text"] == ours


@pytest.mark.parametrize("bundle", ["shakespeare-nano", "bible-nano-int8"])
def test_scores_are_pythons(module: Path, bundle: str) -> None:
    text = "Tomorrow, and tomorrow, and tomorrow,\nCreeps in this 水 petty pace.\n" * 8
    with pytest.warns(UserWarning, match="水") if bundle == "shakespeare-nano" else nullcontext():
        ours = native(ROOT / "models" / bundle).score(text, per_token=True)
    theirs = say(ROOT / "models" / bundle, score=text)["score"]
    for name in ("tokens", "characters", "bytes"):
        assert theirs[name] == getattr(ours, name)
    assert theirs["unknownCharacters"] == ours.unknown_characters
    assert theirs["unknownBytes"] == ours.unknown_bytes
    assert ours.token_logprobs is not None
    difference = np.abs(np.asarray(theirs["logprobs"]) - ours.token_logprobs).max()
    assert difference < 2e-5
    assert theirs["nats"] == pytest.approx(ours.nats, rel=1e-6)


def test_a_stream_that_python_saved_goes_on(module: Path, tmp_path: Path) -> None:
    session = native(NANO).session(learn="all")
    session.feed("JULIET:\nO ")
    session.learn("Mirabelle sleeps on the stove. ")
    pieces = session.stream(max_new_tokens=120, temperature=0.7, seed=5, stop=["zebra"])
    start = "".join(next(pieces) for _ in range(30))
    session.save(tmp_path / "juliet.state")
    saved = base64.b64encode((tmp_path / "juliet.state").read_bytes()).decode()
    answer = say(NANO, state=saved, resume={})
    assert answer["text"] == "".join(pieces)
    assert len(start + answer["text"]) == 120
    # What is not changed is written as it was, to the byte.
    assert say(NANO, state=saved, save=0)["state"] == saved


def test_python_continues_what_the_module_saved(module: Path, tmp_path: Path) -> None:
    options = {"maxNewTokens": 100, "temperature": 0.9, "seed": 11, "stop": "qqq"}
    whole = say(NANO, learn="Mirabelle", text="ROMEO:\n", options=options)["text"]
    part = say(NANO, learn="Mirabelle", text="ROMEO:\n", options=options, save=40)
    (tmp_path / "romeo.state").write_bytes(base64.b64decode(part["state"]))
    session = native(NANO).restore(tmp_path / "romeo.state")
    assert part["text"] + "".join(session.resume()) == whole


@pytest.mark.slow
def test_in_node(module: Path) -> None:
    tests = ("test/module.test.js", "test/hostile.test.js")
    result = _run("node", "--expose-gc", "--test", *tests, cwd=WEB)
    assert result.returncode == 0, result.stdout


@pytest.mark.slow
def test_in_chromium(module: Path, packages: Path, tmp_path: Path) -> None:
    chromium = os.environ.get("CHROMIUM", "/usr/bin/chromium")
    if not Path(chromium).exists():
        pytest.skip("chromium is not installed: apt-get install chromium")
    session = native(NANO).session()
    session.feed("JULIET:\nO ")
    next(session.stream(max_new_tokens=80, seed=5))
    session.save(tmp_path / "juliet.state")
    expected = "".join(session.resume())
    state = {"RILLET_STATE": str(tmp_path / "juliet.state"), "RILLET_TEXT": expected}
    result = _run("node", "--test", "test/browser.test.js", cwd=WEB, env={**os.environ, **state})
    assert result.returncode == 0, result.stdout
    assert "# skipped 0" in result.stdout, result.stdout


@pytest.mark.slow
def test_the_package(packages: Path, tmp_path: Path) -> None:
    """It holds what was built, with types, and two linters find nothing."""
    types = _run("make", "web-types")
    assert types.returncode == 0, types.stdout + types.stderr
    packed = _run("npm", "pack", "--json", "--pack-destination", str(tmp_path), cwd=WEB)
    assert packed.returncode == 0, packed.stderr
    (package,) = json.loads(packed.stdout)
    names = {file["path"] for file in package["files"]}
    assert {
        "dist/rillet.wasm",
        "dist/rillet-simd.wasm",
        "dist/index.js",
        "dist/index.d.ts",
    } <= names
    assert not any(name.startswith(("c/", "src/", "test/", "node_modules")) for name in names)
    archive = str(tmp_path / package["filename"])
    for linter in (("publint", "--strict", archive), ("attw", "--profile", "esm-only", archive)):
        result = _run(str(packages / linter[0]), *linter[1:], cwd=WEB)
        assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("wasm", ["rillet-simd.wasm", "rillet.wasm"])
def test_a_page_fetches_little(module: Path, wasm: str) -> None:
    """What docs/browser.md promises, with what gzip makes of it."""
    files = [module / wasm, *(f for f in module.glob("*.js") if f.name != "node.js")]
    assert sum(len(gzip.compress(file.read_bytes(), 9)) for file in files) <= 60_000


def test_the_version_is_pythons() -> None:
    lines = (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    version = next(line.split('"')[1] for line in lines if line.startswith("version = "))
    package = json.loads((WEB / "package.json").read_text(encoding="utf-8"))
    assert package["version"] == version

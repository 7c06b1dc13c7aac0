"""``rillet-run`` under sanitizers: whole runs, and strange files with valid hashes."""

from __future__ import annotations

import json
import os
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load as from_safetensors
from safetensors.numpy import save as to_safetensors

from rillet.runtime import load
from rillet.runtime.bundle import checksum
from rillet.runtime.files import sha256_file
from rillet.runtime.streams.saved_state import checksum as stream_checksum
from rillet.train import Checkpoint
from support.native import native_bundle, needs_native
from support.programs import compile_sanitized
from support.rillet_run import needs_compiler, program

pytestmark = [needs_native, needs_compiler]

ROOT = Path(__file__).parents[2]
CASES = int(os.environ.get("RILLET_FUZZ_CASES", "60"))
STRANGE = [
    None,
    True,
    -1,
    0,
    1,
    2**31,
    2**62,
    2**70,
    0.5,
    1e300,
    "",
    "\x00",
    "é" * 300,
    "zz",
    [],
    {},
    [[]],
]


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, with sanitizers in all but the kernels."""
    result = tmp_path_factory.mktemp("run") / "rillet-run"
    parts = ("decode", "encode", "json", "saved", "sha256", "stops", "tokenizer", "tokens", "words")
    sources = [*sorted((ROOT / "native" / "run").glob("*.c"))]
    sources += [ROOT / "native" / "src" / f"{part}.c" for part in parts]
    library = program().parent / "librillet.a"
    return compile_sanitized(result, "-D_DEFAULT_SOURCE", *map(str, [*sources, library]))


@pytest.fixture
def bundle(small: Checkpoint, tmp_path: Path) -> Path:
    """A bundle to damage."""
    return native_bundle(small, tmp_path / "bundle")


def run(sanitized: Path, *arguments: object) -> int:
    """Run the program; what it keeps to its end is no leak."""
    result = subprocess.run(
        [sanitized, *map(str, arguments)],
        capture_output=True,
        check=False,
        env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"},
    )
    assert result.returncode in (0, 1, 2), result.stderr
    errors = result.stderr.decode("utf-8", "replace")
    assert "Sanitizer" not in errors, errors
    assert "runtime error" not in errors, errors
    assert result.returncode == 0 or "Error: " in errors
    return result.returncode


def strange(value: Any, draw: random.Random) -> Any:
    """A copy of a JSON value with something strange in one place, or without it."""
    if not isinstance(value, dict | list) or not value or draw.random() < 0.1:
        return draw.choice(STRANGE)
    copy = value.copy()
    key = draw.choice(sorted(copy) if isinstance(copy, dict) else range(len(copy)))
    if draw.random() < 0.1:
        del copy[key]
    else:
        copy[key] = strange(copy[key], draw)
    return copy


def test_whole_runs_are_clean(sanitized: Path, bundle: Path, text: str, tmp_path: Path) -> None:
    saved, lesson = tmp_path / "saved", tmp_path / "lesson"
    lesson.write_text(text[:2_000], encoding="utf-8")
    options = ("--seed", 1, "--max-new-tokens", 40, "--stop", "the", "--top-k", 9, "--top-p", 0.9)
    assert run(sanitized, bundle, "A é \x07", *options, "--save-state", saved) == 0
    assert run(sanitized, bundle, "--load-state", saved, "--max-new-tokens", 30) == 0
    again = ("--load-state", saved, "--save-state", saved, "--stop", "zz", "--learn-from", lesson)
    assert run(sanitized, bundle, *again) == 0
    assert run(sanitized, "--help") == 0


def test_strange_manifests_do_no_harm(sanitized: Path, bundle: Path) -> None:
    path, draw = bundle / "bundle.json", random.Random(1)  # noqa: S311
    manifest = json.loads(path.read_text(encoding="utf-8"))
    for _ in range(CASES):
        other = strange(manifest, draw)
        if isinstance(other, dict):
            other["checksum"] = checksum(other)
        path.write_text(json.dumps(other), encoding="utf-8")
        run(sanitized, bundle, "a", "--max-new-tokens", 2)


def test_strange_defaults_do_no_harm(sanitized: Path, bundle: Path) -> None:
    path, file, draw = bundle / "bundle.json", bundle / "generation_config.json", random.Random(2)  # noqa: S311
    manifest = json.loads(path.read_text(encoding="utf-8"))
    defaults = json.loads(file.read_text(encoding="utf-8"))
    defaults |= {"stop": ["zz"], "min_p": 0.1, "bad_words": [], "max_new_tokens": 3}
    for _ in range(CASES):
        file.write_text(json.dumps(strange(defaults, draw)), encoding="utf-8")
        manifest["files"][file.name] = sha256_file(file)
        manifest["checksum"] = checksum(manifest)
        path.write_text(json.dumps(manifest), encoding="utf-8")
        # Some defaults are valid, and ask for a text without end.
        run(sanitized, bundle, "a", "--max-new-tokens", 2)


def test_strange_saved_streams_do_no_harm(sanitized: Path, bundle: Path, tmp_path: Path) -> None:
    saved, draw = tmp_path / "saved", random.Random(3)  # noqa: S311
    session = load(bundle, "native").session()
    session.feed("A stream")
    session.generate(seed=1, max_new_tokens=10, stop=["zz"], temperature=1.5)
    session.save(saved)
    data = saved.read_bytes()
    tensors, size = from_safetensors(data), int.from_bytes(data[:8], "little")
    header = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["rillet"])
    for _ in range(CASES):
        other = strange(header, draw)
        if not isinstance(other, dict):
            continue
        if draw.random() < 0.8 and isinstance(header["generation"], dict):
            other["generation"] = strange(header["generation"], draw)
        other["checksum"] = stream_checksum(other, tensors)
        text = json.dumps(other, sort_keys=True)
        saved.write_bytes(to_safetensors(tensors, {"rillet": text}))
        run(sanitized, bundle, "--load-state", saved, "--max-new-tokens", 2)

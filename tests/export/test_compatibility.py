"""Bundles, saved streams and checkpoints of every released format still load.

``scripts/keep_format.py`` wrote the files in ``tests/data``; they are never rewritten.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.numpy import load_file
from safetensors.numpy import save as to_safetensors

from rillet.export import verify
from rillet.runtime import BundleError, StateError, load
from rillet.runtime.bundle import checksum
from rillet.runtime.golden import verify_golden
from rillet.runtime.state_table import FORMAT_VERSION

DATA = Path(__file__).parents[1] / "data"
KEPT = sorted(DATA.glob("format-*"))


@pytest.fixture(params=KEPT, ids=lambda path: path.name)
def kept(request: pytest.FixtureRequest) -> Path:
    return request.param


def expected_of(kept: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((kept / "expected.json").read_text())
    return value


def test_the_current_format_is_kept() -> None:
    assert f"format-{FORMAT_VERSION}" in [path.name for path in KEPT]


def test_a_kept_bundle_generates_the_same_text(kept: Path) -> None:
    expected = expected_of(kept)
    model = load(kept / "bundle")
    verify_golden(model)
    text = model.generate(expected["prompt"], **expected["options"])
    assert text == expected["begun"] + expected["rest"]
    score = model.score(expected["prompt"]).nats_per_token
    assert score == pytest.approx(expected["nats_per_token"], abs=1e-4)


def test_a_kept_stream_resumes(kept: Path) -> None:
    session = load(kept / "bundle").restore(kept / "stream.state")
    assert "".join(session.resume()) == expected_of(kept)["rest"]


def test_a_kept_bundle_matches_its_checkpoint(kept: Path) -> None:
    verify(kept / "bundle", kept / "checkpoint", steps=200).check()


def test_a_newer_minor_version_is_read(kept: Path, tmp_path: Path) -> None:
    """Its additional entries are ignored."""
    bundle = with_version(kept, tmp_path, f"{FORMAT_VERSION.split('.')[0]}.99")
    assert load(bundle).generate("It", max_new_tokens=3, seed=1)


def test_a_newer_bundle_is_refused(kept: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"format version 9\.0, (and|but) this rillet reads"):
        load(with_version(kept, tmp_path, "9.0"))


def with_version(kept: Path, tmp_path: Path, version: str) -> Path:
    bundle = tmp_path / "bundle"
    shutil.copytree(kept / "bundle", bundle)
    manifest = json.loads((bundle / "bundle.json").read_text())
    manifest["format_version"] = version
    manifest["entry of the future"] = {"a": [1]}
    manifest["checksum"] = checksum(manifest)
    (bundle / "bundle.json").write_text(json.dumps(manifest))
    return bundle


def test_a_newer_stream_is_refused(kept: Path, tmp_path: Path) -> None:
    with safe_open(kept / "stream.state", framework="numpy") as file:
        header = json.loads(file.metadata()["rillet"])
    header["format_version"] = "9.0"
    path = tmp_path / "newer.state"
    data = to_safetensors(load_file(kept / "stream.state"), {"rillet": json.dumps(header)})
    path.write_bytes(data)
    with pytest.raises(StateError, match=r"format version 9\.0, (and|but) this rillet reads"):
        load(kept / "bundle").restore(path)

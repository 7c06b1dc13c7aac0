"""Bundles on the Hugging Face Hub: its own client, and a local server that speaks for the hub."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.command_line import rillet
from support.hub import Hub, serve_hub

NANO = Path(__file__).parents[2] / "models" / "shakespeare-nano"
NAME = "owner/shakespeare-nano"
GREEDY = ["--max-new-tokens", "20", "--temperature", "0"]


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve_hub() as served:
        yield served


def python(code: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


def test_a_bundle_is_fetched_once_and_then_runs_without_the_hub(hub: Hub, tmp_path: Path) -> None:
    hub.add(NAME, NANO)
    env = hub.environment(tmp_path / "home")
    local = rillet("generate", str(NANO), "ROMEO:", *GREEDY).stdout
    fetched = rillet("generate", f"hf:{NAME}", "ROMEO:", *GREEDY, env=env, cwd=tmp_path)
    assert fetched.returncode == 0, fetched.stderr
    assert fetched.stdout == local
    assert [path.name for path in tmp_path.iterdir()] == ["home"]  # nothing outside the cache
    hub.repositories.clear()
    again = rillet("verify", f"hf:{NAME}", env={**env, "HF_HUB_OFFLINE": "1"})
    assert again.returncode == 0, again.stderr


def test_a_revision_is_what_was_asked_for(hub: Hub, tmp_path: Path) -> None:
    hub.add(NAME, NANO)
    hub.add(NAME, NANO.with_name("shakespeare-nano-int8"), "int8")
    code = f"""
import rillet.runtime
for options in ({{}}, {{"revision": "int8"}}):
    print(rillet.runtime.load("hf:{NAME}", **options).bundle.manifest["precision"])
print(rillet.runtime.load("hf:{NAME}@int8").bundle.manifest["precision"])
"""
    result = python(code, hub.environment(tmp_path))
    assert result.stdout.split() == ["fp32", "int8", "int8"], result.stderr


def test_a_damaged_file_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.add(NAME, NANO)
    files = hub.repositories[NAME]["main"]
    files["decode.onnx"] = files["decode.onnx"][:-1] + b"?"
    result = rillet("generate", f"hf:{NAME}", "ROMEO:", env=hub.environment(tmp_path))
    assert result.returncode == 1
    assert "decode.onnx is damaged or was changed" in result.stderr


def test_what_the_hub_lacks_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.add(NAME, NANO)
    env = hub.environment(tmp_path)
    for name in ("owner/other", f"{NAME}@v9", "no/such/name"):
        result = rillet("inspect", f"hf:{name}", env=env)
        assert result.returncode == 1
        assert f"hf:{name} cannot be fetched from the Hugging Face Hub" in result.stderr
    both = f"import rillet.runtime as r; r.load('hf:{NAME}@a', revision='b')"
    assert "names the revision a, and revision is 'b'" in python(both, env).stderr
    folder = f"import rillet.runtime as r; r.load({str(NANO)!r}, revision='b')"
    assert "leave it out, or give hf:OWNER/NAME" in python(folder, env).stderr


def test_the_hubs_own_upload_makes_a_repository_that_loads(hub: Hub, tmp_path: Path) -> None:
    """`hf upload`: a bundle is a plain folder."""
    shutil.copytree(NANO, tmp_path / "my-model")
    env = hub.environment(tmp_path / "home")
    command = [str(Path(sys.executable).with_name("hf")), "upload", "owner/mine", "my-model", "."]
    uploaded = subprocess.run(
        command, capture_output=True, text=True, check=False, env=env, cwd=tmp_path
    )
    assert uploaded.returncode == 0, uploaded.stderr
    sent = hub.repositories["owner/mine"]["main"]
    assert sent == {path.name: path.read_bytes() for path in NANO.iterdir()}
    result = rillet("generate", "hf:owner/mine", "ROMEO:", *GREEDY, env=env)
    assert result.returncode == 0, result.stderr


def test_only_links_of_the_hubs_cache_are_followed(tmp_path: Path) -> None:
    """A file that is a link is refused, unless it leads into the cache's own contents."""
    from rillet.runtime import Bundle, BundleError

    cache = tmp_path / "models--owner--name"
    snapshot, blobs = cache / "snapshots" / "0", cache / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for file in NANO.iterdir():
        shutil.copy(file, blobs / file.name)
        (snapshot / file.name).symlink_to(Path("..", "..", "blobs", file.name))
    assert Bundle.open(snapshot).manifest["precision"] == "fp32"
    # A blob that is itself a link to elsewhere.
    shutil.copy(NANO / "decode.onnx", tmp_path / "elsewhere")
    (blobs / "decode.onnx").unlink()
    (blobs / "decode.onnx").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="is a link"):
        Bundle.open(snapshot)
    # The same links anywhere else.
    (snapshot / "decode.onnx").unlink()
    (snapshot / "decode.onnx").symlink_to(NANO / "decode.onnx")
    with pytest.raises(BundleError, match="is a link"):
        Bundle.open(snapshot)

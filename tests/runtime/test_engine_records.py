"""What an engine was built for, where it is kept, and when it is refused, without a GPU."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
from pathlib import Path

import pytest

from rillet.runtime import Bundle, EngineError
from rillet.runtime.engines.cache import cache_folder, engine_files
from rillet.runtime.engines.engine_key import EngineKey
from rillet.runtime.engines.ort.options import cuda_options
from rillet.runtime.engines.tensorrt.api import how_to_install, is_jetson, parse_layers
from rillet.runtime.engines.tensorrt.records import find_records, save_engine

KEY = EngineKey(
    graph="decode",
    graph_sha256="a" * 64,
    precision="fp32",
    library="tensorrt 10.3.0",
    gpu="Orin",
    capability="8.7",
    driver="12.6",
    platform="linux-aarch64",
    batches=(1, 8),
)


@pytest.fixture
def bundle(small_bundle: Path, tmp_path: Path) -> Bundle:
    shutil.copytree(small_bundle, tmp_path / "model")
    return Bundle.open(tmp_path / "model")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"graph_sha256": "b" * 64}, "another graph"),
        ({"precision": "fp16"}, "precision fp32, and the bundle is fp16"),
        ({"library": "tensorrt 10.13.3"}, "tensorrt 10.3.0, and this machine has tensorrt 10.13.3"),
        ({"library": "tensorrt_rtx 10.3.0"}, "this machine has tensorrt_rtx"),
        ({"gpu": "NVIDIA Thor", "capability": "11.0"}, "Orin .* and this machine has NVIDIA Thor"),
        ({"platform": "linux-x86_64"}, "linux-aarch64, and this machine is linux-x86_64"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_another_machine_version_or_graph_does_not_fit(
    change: dict[str, str], message: str
) -> None:
    here = dataclasses.replace(KEY, **change)
    assert here.digest != KEY.digest
    reason = KEY.misfit(here)
    assert reason is not None
    assert re.search(message, reason), reason


def _fits(key: EngineKey, here: EngineKey) -> None:
    assert key.misfit(here) is None


def test_what_fits() -> None:
    _fits(KEY, KEY)
    # Another driver or other batches make another key, but no reason to refuse.
    for change in ({"driver": "13.0"}, {"batches": (1,)}):
        here = dataclasses.replace(KEY, **change)
        assert here.digest != KEY.digest
        _fits(KEY, here)
    portable = dataclasses.replace(KEY, hardware_compatible=True, version_compatible=True)
    _fits(portable, dataclasses.replace(KEY, gpu="NVIDIA L4", capability="8.9"))
    _fits(portable, dataclasses.replace(KEY, library="tensorrt 10.16.1"))
    for change in (
        {"gpu": "Xavier", "capability": "7.2"},
        {"library": "tensorrt 10.2.0"},
        {"library": "tensorrt 11.0.0"},
    ):
        assert portable.misfit(dataclasses.replace(KEY, **change)) is not None
    anywhere = dataclasses.replace(KEY, gpu="any", capability="any", driver="none")
    _fits(anywhere, KEY)


def test_a_key_survives_json() -> None:
    assert EngineKey.from_dict(json.loads(json.dumps(KEY.to_dict()))) == KEY
    for change in ({"batches": [0]}, {"gpu": 3}, {"version_compatible": 1}, {"more": 1}):
        with pytest.raises(EngineError, match="the record of the engine"):
            EngineKey.from_dict({**KEY.to_dict(), **change})


def test_a_record_without_its_engine_is_ignored(bundle: Bundle) -> None:
    folder = cache_folder(bundle)
    gone = save_engine(folder, b"an engine", KEY, 1.5)
    kept = save_engine(folder, b"another", dataclasses.replace(KEY, precision="fp16"), 1.5)
    gone.path.unlink()
    assert [record.path for record in find_records(bundle)] == [kept.path]


def test_engines_lie_beside_the_bundle_and_not_in_it(bundle: Bundle) -> None:
    before = sorted(file.name for file in bundle.path.iterdir())
    folder = cache_folder(bundle)
    assert folder == bundle.path.with_name("model.engines")
    record = save_engine(folder, b"an engine", KEY, 1.5)
    assert find_records(bundle) == [record]
    assert find_records(bundle, "prefill") == []
    assert record.read() == b"an engine"
    assert sorted(file.name for file in bundle.path.iterdir()) == before
    record.remove()
    assert not list(folder.iterdir())


def test_if_the_place_beside_it_is_not_writable(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file with the folder's name makes it unwritable, even for root."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    beside = bundle.path.with_name("model.engines")
    beside.write_text("in the way")
    cache = cache_folder(bundle)
    assert cache.is_relative_to(tmp_path / "cache" / "rillet")
    record = save_engine(cache, b"an engine", KEY, 1.5)
    assert find_records(bundle) == [record]
    monkeypatch.setenv("XDG_CACHE_HOME", str(beside))
    with pytest.raises(EngineError, match=r"no folder to keep engines of .* set XDG_CACHE_HOME"):
        cache_folder(bundle)


@pytest.mark.parametrize("home", ["a file", None])
def test_a_cache_that_cannot_be_read_has_no_engines(
    home: str | None, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Services have no home, or another user's."""
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if home is None:
        monkeypatch.delenv("HOME")
        monkeypatch.setattr(os, "getuid", lambda: 123_456)  # nobody's
    else:
        (tmp_path / "home").write_text(home)
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert find_records(bundle) == []
    assert engine_files(bundle, "*") == []
    assert cache_folder(bundle) == bundle.path.with_name("model.engines")


def test_a_damaged_engine_or_record_is_refused(bundle: Bundle) -> None:
    record = save_engine(cache_folder(bundle), b"an engine", KEY, 1.5)
    record.path.write_bytes(b"an engina")
    with pytest.raises(EngineError, match="is damaged"):
        record.read()
    record.path.unlink()
    with pytest.raises(EngineError, match="cannot be read"):
        record.read()
    file = record.path.with_suffix(".json")
    value = json.loads(file.read_text())
    for change, message in (
        ({"format": "other"}, "is not the record of an engine"),
        ({"format_version": "2.0"}, "install a newer rillet"),
        ({"key": {}}, "does not have the fields"),
        ({"size": "large"}, "cannot be read"),
        ({"seconds": 10**400}, "cannot be read"),
        ({"layers": [1]}, "cannot be read"),
    ):
        file.write_text(json.dumps({**value, **change}))
        with pytest.raises(EngineError, match=message):
            find_records(bundle)
    file.write_text("{")
    with pytest.raises(EngineError, match="or remove it"):
        find_records(bundle)


def test_float32_is_float32_on_cuda() -> None:
    assert cuda_options(True)["use_tf32"] == "0"
    assert cuda_options(True)["enable_cuda_graph"] == "1"
    assert cuda_options(False)["enable_cuda_graph"] == "0"


def test_reports_of_10_and_11_name_their_layers() -> None:
    ten = '{"Layers": [{"Name": "matmul", "LayerType": "gemm"}, {"Name": "sin"}], "Bindings": []}'
    names_only = '{"Layers": ["matmul"], "I/O Tensors": []}'
    assert parse_layers(ten) == [
        {"name": "matmul", "type": "gemm"},
        {"name": "sin", "type": ""},
    ]
    assert parse_layers(names_only) == [{"name": "matmul", "type": ""}]
    assert parse_layers("not JSON") == []


@pytest.mark.skipif(is_jetson(), reason="a Jetson has its TensorRT from JetPack")
def test_the_command_for_this_machine() -> None:
    assert "pip install 'rillet[tensorrt]'" in how_to_install()
    assert how_to_install("tensorrt_rtx") == "install it: pip install tensorrt-rtx"

"""Which providers can run here, and why others cannot; what doctor and bench print."""

from __future__ import annotations

import csv
import ctypes
import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest

from rillet.runtime import EngineError, Model, load
from rillet.runtime import doctor as doctor_module
from rillet.runtime.engines.cuda import driver as cuda_driver
from rillet.runtime.engines.ort import providers
from rillet.runtime.golden import self_test
from support.command_line import here, rillet

only_on_cpu = pytest.mark.skipif(
    "CUDAExecutionProvider" in __import__("onnxruntime").get_available_providers(),
    reason="this onnxruntime has a CUDA provider",
)


def test_what_a_model_is(small_model: Model, small_bundle: Path) -> None:
    info = small_model.info
    assert info.provider == load(small_bundle).engine.provider
    assert info.precision == "fp32"
    assert info.memory == 20
    assert info.graphs["decode"] == (small_bundle / "decode.onnx").stat().st_size
    state = small_model.session().state
    assert info.state_bytes == sum(value.nbytes for value in state.values())
    assert json.loads(json.dumps(info.to_dict()))["vocab_size"] == small_model.vocab_size


@only_on_cpu
@pytest.mark.parametrize(
    ("provider", "reason"),
    [("cuda", r"pip install 'rillet\[gpu\]'"), ("tensorrt", "no NVIDIA driver|cannot be imported")],
)
def test_a_provider_that_is_not_installed(small_bundle: Path, provider: str, reason: str) -> None:
    if provider == "tensorrt" and cuda_driver.driver_obstacle() is None:
        pytest.skip("this machine has a GPU")
    message = f"provider '{provider}' cannot run here: .*({reason})"
    with pytest.raises(EngineError, match=message):
        load(small_bundle, provider)
    with pytest.warns(UserWarning, match="using '(native|cpu)'"):
        model = load(small_bundle, provider, allow_fallback=True)
    assert model.info.provider in ("native", "CPUExecutionProvider")
    result = here("generate", small_bundle, "The", "--provider", provider)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert re.search(message, result.stderr)


def test_auto_is_silent_if_there_is_no_choice(
    small_bundle: Path, recwarn: pytest.WarningsRecorder
) -> None:
    assert load(small_bundle).info.provider
    assert not [entry for entry in recwarn if "provider" in str(entry.message)]


def test_an_unknown_provider(small_bundle: Path) -> None:
    with pytest.raises(EngineError, match="provider 'tpu' is unknown"):
        load(small_bundle, "tpu")


def test_two_packages_in_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate pip's records of two packages that overwrite each other."""
    assert providers.mixed_up_engines() is None
    for name in ("onnxruntime", "onnxruntime-gpu"):
        folder = tmp_path / f"{name.replace('-', '_')}-1.27.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.27.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    sentence = providers.mixed_up_engines()
    assert sentence is not None
    assert "onnxruntime and onnxruntime-gpu are both installed" in sentence
    assert "pip uninstall onnxruntime onnxruntime-gpu" in sentence
    assert sentence in doctor_module.diagnose()["problems"]


def test_the_driver_is_asked_first() -> None:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        assert "libcuda.so.1 cannot be loaded" in (cuda_driver.driver_obstacle() or "")


def test_the_least_graph_is_valid() -> None:
    model = onnx.load_from_string(doctor_module._LEAST_GRAPH)
    onnx.checker.check_model(model)
    assert (model.ir_version, model.opset_import[0].version) == (10, 18)


def test_doctor(small_bundle: Path, tmp_path: Path) -> None:
    result = rillet("doctor")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "cpu         works (CPUExecutionProvider)" in result.stdout
    assert "No problems found." in result.stdout
    report = json.loads(here("doctor", small_bundle, "--json").stdout)
    assert report["providers"]["cpu"]["works"]
    assert report["providers"]["cpu"]["step_us"] > 0
    marked = [name for name, entry in report["providers"].items() if entry["experimental"]]
    assert marked == ["cuda", "tensorrt"]
    assert report["packages"]["numpy"] == np.__version__
    native = report["tensorrt"]
    assert native["engines"] == []
    obstacle = cuda_driver.driver_obstacle()
    if obstacle is not None:
        assert not native["works"]
        assert obstacle in native["reason"]
        assert native["gpu"] is None
        assert "TensorRT    no" in result.stdout
    result = here("doctor", tmp_path)
    assert result.returncode == 1
    assert f"no provider runs {tmp_path}" in result.stdout


def test_a_broken_engine_is_found_at_load(small_bundle: Path) -> None:
    """A state that is not carried over, the most common complaint about stateful models."""
    model = load(small_bundle)
    difference = self_test(model)
    assert difference is not None
    assert difference < 1e-4
    whole = model.engine.step

    def forgetful(tokens: object, state: object, learn: float = 1.0) -> object:
        return whole(tokens, model.engine.zero_state(), learn)

    model.engine.step = forgetful  # type: ignore[method-assign]
    with pytest.raises(EngineError, match=r"gives wrong results for .*: after \d+ tokens"):
        self_test(model)
    assert load(small_bundle, self_test=False).generate("The", max_new_tokens=3, seed=0)


def test_bench(small_bundle: Path) -> None:
    options = ["--prompt", 20, "--tokens", 12, "--streams", 3, "--repetitions", 2]
    options += ["--provider", "cpu"]
    rows = json.loads(rillet("bench", small_bundle, "--json", *options).stdout)
    assert len(rows) == 1
    assert rows[0]["provider"] == "CPUExecutionProvider"
    for name in ("prefill", "decode", "text", "batch", "load_ms", "p50_us", "p99_us"):
        assert rows[0][name] > 0
    result = here("bench", small_bundle, "--threads", "1,2", *options)
    assert result.returncode == 0, result.stderr
    table = result.stdout.splitlines()
    assert len(table) == 4
    assert len({line.count("|") for line in table}) == 1
    lines = here("bench", small_bundle, "--format", "csv", *options).stdout.splitlines()
    assert next(csv.DictReader(lines))["threads"] == "1"
    for arguments, message in (
        (["--provider", "tpu"], "--provider has 'tpu'"),
        (["--threads", "0"], "--threads has '0'"),
    ):
        result = here("bench", small_bundle, *arguments)
        assert result.returncode == 2
        assert message in result.stderr

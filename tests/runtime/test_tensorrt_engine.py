"""`rillet engine`, and the engine on TensorRT itself.

Building works on any machine with TensorRT-RTX. Running needs a GPU, and those tests are marked;
without one, the tests are about what is refused and why.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from rillet.runtime import Bundle, EngineError, Model, UsageError, load
from rillet.runtime.cli.engine import engine_group
from rillet.runtime.cli.verify import verify_command
from rillet.runtime.engines.cache import cache_folder
from rillet.runtime.engines.cuda import driver as cuda_driver
from rillet.runtime.engines.engine_key import EngineKey
from rillet.runtime.engines.ort.host_engine import OnnxEngine
from rillet.runtime.engines.select import open_engine
from rillet.runtime.engines.tensorrt.api import LIBRARIES
from rillet.runtime.engines.tensorrt.build import BuildOptions
from rillet.runtime.engines.tensorrt.engine import TensorrtEngine
from rillet.runtime.engines.tensorrt.records import find_records, save_engine
from rillet.runtime.golden import verify_golden

needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None,
    reason="tensorrt_rtx is not installed: pip install tensorrt-rtx",
)
without_gpu = pytest.mark.skipif(
    cuda_driver.driver_obstacle() is None, reason="this machine has a GPU"
)

ON_CPU = ("native", "CPUExecutionProvider")

JETSON = EngineKey(
    graph="decode",
    graph_sha256="a" * 64,
    precision="fp32",
    library="tensorrt 10.3.0",
    gpu="Orin",
    capability="8.7",
    driver="12.6",
    platform="linux-aarch64",
)


def command(*arguments: object) -> Result:
    return CliRunner().invoke(engine_group, [str(argument) for argument in arguments])


@pytest.fixture
def bundle(small_bundle: Path, tmp_path: Path) -> Path:
    shutil.copytree(small_bundle, tmp_path / "model")
    return tmp_path / "model"


@needs_rtx
@pytest.mark.tensorrt
def test_build_list_inspect(bundle: Path) -> None:
    rtx = ("--library", "tensorrt_rtx", "--graph", "decode")
    result = command("build", bundle, "--batch", "8,1", "--precision", "fp32", *rtx, "--json")
    assert result.exit_code == 0, result.output
    [built] = json.loads(result.stdout)
    assert built["key"]["batches"] == [1, 8]
    assert built["key"]["precision"] == "fp32"
    folder = bundle.with_name("model.engines")
    record = find_records(Bundle.open(bundle))[0]
    assert record.path.parent == folder
    assert len(record.read()) == built["size"]
    first = record.path.stat().st_mtime_ns

    again = command("build", bundle, "--batch", "1,8", *rtx)
    assert "was built before" in again.stdout
    assert record.path.stat().st_mtime_ns == first
    assert command("build", bundle, "--batch", "1,8", *rtx, "--rebuild").exit_code == 0
    [record] = find_records(Bundle.open(bundle))  # under its other name
    assert record.path.stat().st_mtime_ns > first

    [listed] = json.loads(command("list", bundle, "--json").stdout)
    assert listed["path"] == str(record.path)
    assert record.path.name in command("list", bundle).stdout
    shown = command("inspect", bundle, "decode", "--layers").stdout
    assert built["key"]["graph_sha256"] in shown
    assert isinstance(command("inspect", bundle, "nothing").exception, UsageError)
    if cuda_driver.driver_obstacle() is not None:
        assert built["verified"] is None
        assert "NVIDIA driver" in listed["misfit"]


def test_nothing_was_built(bundle: Path) -> None:
    result = command("list", bundle)
    assert result.exit_code == 0
    assert f"No engine was built from {bundle}: rillet engine build {bundle}" in result.stdout
    assert json.loads(command("list", bundle, "--json").stdout) == []
    spaced = bundle.parent / "my model"
    shutil.copytree(bundle, spaced)
    assert f"rillet engine build '{spaced}'" in command("list", spaced).stdout
    assert f"see rillet engine list '{spaced}'" in str(command("inspect", spaced).exception)


def test_precision_lives_in_the_graph(bundle: Path, small_bundle: Path) -> None:
    error = command("build", bundle, "--precision", "int8").exception
    assert isinstance(error, UsageError)
    assert "rillet quantize" in str(error)
    assert "--method static" in str(error)
    assert f"quantize {bundle} " in str(error)


def test_lowering_twice_is_not_advised() -> None:
    int8 = Path(__file__).parents[2] / "models" / "shakespeare-nano-int8"
    error = str(command("build", int8).exception)
    assert "onnxruntime's own" in error
    assert "rillet quantize FLOAT32_BUNDLE --precision int8 --method static" in error


@pytest.mark.parametrize("batch", ["x", "0", "1,,2", ""])
def test_batches_that_can_never_work(bundle: Path, batch: str) -> None:
    assert isinstance(command("build", bundle, "--batch", batch).exception, UsageError)
    with pytest.raises(UsageError, match="in ascending order, each once"):
        BuildOptions((8, 1))


@without_gpu
def test_without_a_gpu_no_library_is_touched(bundle: Path) -> None:
    with pytest.raises(EngineError):
        TensorrtEngine(Bundle.open(bundle))
    error = command("build", bundle, "--library", "tensorrt").exception
    assert isinstance(error, EngineError)
    assert "TensorRT cannot be imported" in str(error) or "NVIDIA driver" in str(error)
    with pytest.raises(EngineError, match="provider 'tensorrt' cannot run here"):
        load(bundle, "tensorrt")


@without_gpu
def test_an_engine_that_cannot_run_here(bundle: Path) -> None:
    """It is not ignored silently; with ``allow_fallback`` the CPU takes its place."""
    opened = Bundle.open(bundle)
    save_engine(cache_folder(opened), b"built on a Jetson", JETSON, 1.0)
    with pytest.raises(EngineError, match="provider 'tensorrt' cannot run here"):
        load(bundle, "tensorrt")
    with pytest.warns(UserWarning, match="using '(native|cpu)'"):
        assert load(bundle, "tensorrt", allow_fallback=True).info.provider in ON_CPU
    assert open_engine(opened).provider in ON_CPU


# On a GPU.


@pytest.fixture(params=LIBRARIES)
def native(request: pytest.FixtureRequest, bundle: Path) -> TensorrtEngine:
    """The small bundle, built for batches of 1 and 8 and run by TensorRT."""
    obstacle = cuda_driver.driver_obstacle()
    if obstacle is not None:
        pytest.skip(obstacle)
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    result = command("build", bundle, "--batch", "1,8", "--library", request.param, "--json")
    assert result.exit_code == 0, result.output
    return TensorrtEngine(Bundle.open(bundle), request.param)


@pytest.fixture
def host(bundle: Path) -> OnnxEngine:
    return OnnxEngine(Bundle.open(bundle), "cpu")


@pytest.mark.gpu
@pytest.mark.tensorrt
@pytest.mark.parametrize("rows", [1, 5])
def test_steps_and_chunks(native: TensorrtEngine, host: OnnxEngine, rows: int) -> None:
    tokens = np.random.default_rng(5).integers(0, host.vocab_size, (rows, 330))
    ours, theirs = native.zero_state(rows), host.zero_state(rows)
    for at in range(30):
        learn = np.asarray([at % 3 != row for row in range(rows)], np.float32)
        actual = native.step(tokens[:, at], ours, learn)
        np.testing.assert_allclose(actual, host.step(tokens[:, at], theirs, learn), atol=1e-4)
    actual = native.prefill(tokens[:, 30:], ours)
    np.testing.assert_allclose(actual, host.prefill(tokens[:, 30:], theirs), atol=1e-4)
    for name, value in theirs.read().items():
        np.testing.assert_allclose(ours.read()[name], value, atol=1e-4, err_msg=name)


@pytest.mark.gpu
@pytest.mark.tensorrt
def test_with_and_without_cuda_graphs(native: TensorrtEngine, host: OnnxEngine) -> None:
    """Two streams that take turns, each with buffers and graphs of its own."""
    plain = TensorrtEngine(native.bundle, native.api.name, graphs=False)
    tokens = np.random.default_rng(6).integers(0, host.vocab_size, (2, 60))
    ours = [native.zero_state() for _ in tokens]
    theirs = [plain.zero_state() for _ in tokens]
    for at in range(tokens.shape[1]):
        for row, token in enumerate(tokens[:, at : at + 1]):
            actual = native.step(token, ours[row])
            np.testing.assert_allclose(actual, plain.step(token, theirs[row]), atol=1e-5)
    assert "CUDA graphs" in native.version
    assert ours[0].lane.calls.are_captured
    assert not theirs[0].lane.calls.are_captured


@pytest.mark.gpu
@pytest.mark.tensorrt
def test_everything_above_the_engine(native: TensorrtEngine, small_model: Model) -> None:
    model = Model(native.bundle, native)
    assert all(report.greedy for report in verify_golden(model).values())
    assert model.info.provider == "TensorRT"
    sampling = {"max_new_tokens": 40, "temperature": 0.0}
    assert model.generate("The ", **sampling) == small_model.generate("The ", **sampling)
    with model.batch() as batch:
        prompts = ["The ", "A ", "In this "]
        alone = [model.generate(prompt, **sampling) for prompt in prompts]
        assert batch.generate(prompts, **sampling) == alone
    with pytest.raises(EngineError, match="steps at most 8 streams"):
        native.zero_state(9)


@pytest.mark.gpu
@pytest.mark.tensorrt
def test_the_gate_of_verify(native: TensorrtEngine, bundle: Path, small_run: Path) -> None:
    """The whole parity gate runs on TensorRT."""
    options = ["--checkpoint", str(small_run), "--steps", "600", "--json"]
    result = CliRunner().invoke(verify_command, [str(bundle), "--engine", "tensorrt", *options])
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)["parity"]
    assert {row["graph"] for row in rows} == {"decode", "prefill"}
    assert all(row["greedy_differences"] == 0 for row in rows)


@pytest.mark.gpu
@pytest.mark.tensorrt
def test_load_finds_it_and_refuses_a_stale_one(native: TensorrtEngine, bundle: Path) -> None:
    assert load(bundle, "tensorrt").info.provider == "TensorRT"
    assert load(bundle).info.provider == "TensorRT"
    records = find_records(native.bundle, "decode")
    for record in records:
        value = json.loads(record.path.with_suffix(".json").read_text())
        value["key"]["graph_sha256"] = "0" * 64
        record.path.with_suffix(".json").write_text(json.dumps(value))
    with pytest.raises(EngineError, match=f"{records[0].path.name} was built for another graph"):
        TensorrtEngine(native.bundle, native.api.name)

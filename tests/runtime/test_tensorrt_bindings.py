"""The API that we use exists in the real bindings of each TensorRT, and in cuda-python.

The bindings are small wheels on the package index; the libraries behind them are not. With a stub
that has the libraries' entry points, the bindings can be imported and their classes inspected. The
names to look for are read from our own source.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from support.wheels import ROOT, fetch

SOURCES = sorted((ROOT / "runtime" / "engines" / "tensorrt").glob("[!_]*.py"))
CLASSES = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "config": "IBuilderConfig",
    "profile": "IOptimizationProfile",
    "entry": "ITensor",
    "cache": "ITimingCache",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
    "inspector": "EngineInspector",
}
"""What our source calls an object, and its class."""

GUARDED = {
    "trt.EngineValidity",
    "trt.EngineValidity.INVALID",
    "Runtime.get_engine_validity",
    "ICudaEngine.device_memory_size",
    "ICudaEngine.device_memory_size_v2",
}
"""Checked with `hasattr` before use; the two memory sizes are alternatives."""

VERSIONS = [
    "tensorrt-cu12-bindings==10.3.0",
    "tensorrt-cu12-bindings==10.13.3.9",
    "tensorrt-cu12-bindings==10.16.1.11",
    "tensorrt-cu13-bindings==11.0.0.114",
    "tensorrt-cu13-bindings==11.4.0.106",
]

STUB = "\n".join(
    f"void *{name}() {{ return 0; }}"
    for name in (
        "createInferBuilder_INTERNAL",
        "createInferRuntime_INTERNAL",
        "createInferRefitter_INTERNAL",
        "createNvOnnxParser_INTERNAL",
        "createNvOnnxParserRefitter_INTERNAL",
        "getNvOnnxParserVersion",
        "getBuilderPluginRegistry",
        "getPluginRegistry",
        "initLibNvInferPlugins",
    )
)

PROBE = """
import importlib, json, sys
sys.path[:0] = json.loads(sys.argv[1])
bindings = importlib.import_module(sys.argv[2])
from rillet.runtime.engines.tensorrt.api import TensorrtApi
api = TensorrtApi(bindings, "tensorrt", bindings.__version__)
missing = []
for path in json.loads(sys.argv[3]):
    value = bindings
    for name in path.split("."):
        value = getattr(value, name, None)
    if value is None:
        missing.append(path)
logger = api.logger()
logger.log(bindings.ILogger.Severity.ERROR, "a message")
seen = []
monitor = api.monitor(lambda *event: seen.append(event))
monitor.phase_start("all", None, 2)
monitor.step_complete("all", 0)
monitor.phase_finish("all")
print(json.dumps({"missing": missing, "flags": api.network_flags(), "errors": logger.errors,
                  "seen": seen, "library": api.library}))
"""


def names_used() -> list[str]:
    """Every attribute of TensorRT that our source uses, as a path from the module."""
    names = set()
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Attribute):
                continue
            chain = _chain(node)
            if "trt" in chain[:-1] or "_trt" in chain[:-1]:
                at = chain.index("trt" if "trt" in chain else "_trt")
                path = [part for part in chain[at + 1 :] if not part.startswith("__")]
                names |= {"trt." + ".".join(path)} if path else set()
            elif len(chain) > 1 and chain[-2] in CLASSES and not chain[-1].startswith("_"):
                names.add(f"{CLASSES[chain[-2]]}.{chain[-1]}")
    return sorted(names)


def _chain(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Attribute):
        return [*_chain(node.value), node.attr]
    return [node.id] if isinstance(node, ast.Name) else [""]


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Libraries with TensorRT's entry points and nothing behind them."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("there is no C compiler to make stub libraries with")
    folder = tmp_path_factory.mktemp("stubs")
    (folder / "stub.c").write_text(STUB)
    built = folder / "libnvinfer.so.10"
    command = [compiler, "-shared", "-fPIC", "-o", str(built), str(folder / "stub.c")]
    subprocess.run(command, check=True)
    for name in ("libnvinfer", "libnvonnxparser", "libnvinfer_plugin"):
        for major in (10, 11):
            if (copy := folder / f"{name}.so.{major}") != built:
                shutil.copy(built, copy)
    return folder


def test_the_names_to_look_for() -> None:
    """Reading our own source finds the names that it should."""
    names = names_used()
    assert {
        "trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED",
        "trt.BuilderFlag.TF32",
        "trt.IProgressMonitor",
        "Builder.build_serialized_network",
        "OnnxParser.parse",
        "IOptimizationProfile.set_shape",
        "IBuilderConfig.set_timing_cache",
        "Runtime.deserialize_cuda_engine",
        "ICudaEngine.create_execution_context",
        "IExecutionContext.set_tensor_address",
        "IExecutionContext.execute_async_v3",
        "EngineInspector.get_engine_information",
    } <= set(names)
    # Removed in version 11, so it must never appear in our source.
    gone = ("EXPLICIT_BATCH", "FP16", "BF16", "INT8", "FP8", "INT4", "Calibrator", "supports_model")
    assert not [name for name in names if name.rpartition(".")[2] in gone]


@pytest.mark.parametrize("requirement", VERSIONS)
def test_the_bindings_have_it(requirement: str, stubs: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(fetch(requirement)) as wheel:
        wheel.extractall(tmp_path)
    report = probe("tensorrt_bindings", tmp_path, {"LD_LIBRARY_PATH": str(stubs)})
    assert report["missing"] == []
    assert report["flags"] == (2 if "==10." in requirement else 1)
    assert report["errors"] == ["a message"]
    assert report["seen"] == [["all", 0, 2], ["all", 1, 2], ["all", 2, 2]]
    assert requirement.partition("==")[2].startswith(report["library"].removeprefix("tensorrt "))


def test_tensorrt_rtx_has_it(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed: pip install it")
    report = probe("tensorrt_rtx", tmp_path, {})
    assert report["missing"] == []
    assert report["flags"] == 1


def probe(module: str, folder: Path, environment: dict[str, str]) -> dict[str, Any]:
    paths = [name.removeprefix("trt.") for name in names_used() if name not in GUARDED]
    command = [sys.executable, "-c", PROBE, json.dumps([str(folder)]), module, json.dumps(paths)]
    result = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    report: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return report


CUDA_PROBE = """
import json, sys
sys.path[:0] = json.loads(sys.argv[1])
from cuda.bindings import runtime
from rillet.runtime import EngineError
from rillet.runtime.engines.cuda.memory import Cuda
missing = []
for path in json.loads(sys.argv[2]):
    value = runtime
    for name in path.split("."):
        value = getattr(value, name, None)
    if value is None:
        missing.append(path)
try:
    Cuda()
    outcome = "works"
except EngineError as error:
    outcome = str(error)
print(json.dumps({"missing": missing, "outcome": outcome}))
"""

CUDA_VALUES = [
    "cudaMemcpyKind.cudaMemcpyHostToDevice",
    "cudaMemcpyKind.cudaMemcpyDeviceToHost",
    "cudaMemcpyKind.cudaMemcpyDeviceToDevice",
    "cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal",
    "cudaError_t.cudaSuccess",
    "cudaError_t.cudaErrorInsufficientDriver",
    "cudaStreamNonBlocking",
    "cudaGetErrorString",
]


@pytest.mark.parametrize(
    "requirements",
    [["cuda-python==12.6.2.post1"], ["cuda-bindings==13.4.4", "cuda-pathfinder==1.9.1"]],
    ids=lambda names: names[0],
)
def test_cuda_python_has_what_is_called(requirements: list[str], tmp_path: Path) -> None:
    """And without a driver, the error is a sentence, not a traceback."""
    for requirement in requirements:
        with zipfile.ZipFile(fetch(requirement)) as wheel:
            wheel.extractall(tmp_path)
    source = ast.parse(
        (ROOT / "runtime" / "engines" / "cuda" / "memory.py").read_text(encoding="utf-8")
    )
    texts = [node.value for node in ast.walk(source) if isinstance(node, ast.Constant)]
    called = {text for text in texts if isinstance(text, str) and re.fullmatch(CALL, text)}
    assert {"cudaMalloc", "cudaMemcpyAsync", "cudaGraphLaunch", "cudaFreeHost"} <= called
    names = json.dumps(sorted(called) + CUDA_VALUES)
    command = [sys.executable, "-c", CUDA_PROBE, json.dumps([str(tmp_path)]), names]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout.splitlines()[-1])
    assert report["missing"] == []
    assert report["outcome"] == "works" or "failed: " in report["outcome"]


CALL = (
    r"cuda(Malloc|Free|FreeHost|HostAlloc|Mem\w+Async|Stream[A-Z]\w+(?<!ThreadLocal)|"
    r"Graph\w+|Get\w+)"
)

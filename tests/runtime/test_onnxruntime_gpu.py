"""The real onnxruntime-gpu on a machine without a GPU: an error if named, a warning if not.

Its wheel is 256 MB; it is fetched if ``RILLET_GPU_WHEEL`` is set, and kept in ``build``.
"""

from __future__ import annotations

import json
import mmap
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from rillet.runtime.engines.cuda import driver as cuda_driver
from rillet.runtime.engines.ort.options import cuda_options
from support.wheels import ROOT, fetch

pytestmark = pytest.mark.slow

REQUIREMENT = "onnxruntime-gpu==1.31.1"
FOLDER = ROOT / "build" / REQUIREMENT.replace("==", "-")
RILLET = ("-m", "rillet.runtime.cli")


@pytest.fixture(scope="module")
def package() -> Path:
    """The unpacked package: first on the path, it is the onnxruntime that is imported."""
    if sys.platform != "linux":
        pytest.skip("the messages about missing libraries are those of Linux")
    if not (FOLDER / "onnxruntime").is_dir():
        if not os.environ.get("RILLET_GPU_WHEEL"):
            pytest.skip(f"{REQUIREMENT} is 256 MB; set RILLET_GPU_WHEEL=1 to fetch it")
        wheel = fetch(REQUIREMENT)
        with zipfile.ZipFile(wheel) as content:
            content.extractall(FOLDER)
        wheel.unlink()
    return FOLDER


@pytest.fixture
def no_gpu() -> None:
    if cuda_driver.driver_obstacle() is None:
        pytest.skip("this machine has a GPU")


def python(package: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(package)}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.usefixtures("no_gpu")
def test_a_named_provider_is_refused(package: Path, small_bundle: Path) -> None:
    result = python(package, *RILLET, "generate", small_bundle, "The", "--provider", "cuda")
    assert result.returncode == 1
    assert result.stdout == ""
    assert "provider 'cuda' cannot run here: there is no NVIDIA driver" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.usefixtures("no_gpu")
def test_auto_warns_and_continues(package: Path, small_bundle: Path) -> None:
    arguments = ("generate", small_bundle, "The ", "--max-new-tokens", 20, "--seed", 1)
    result = python(package, *RILLET, *arguments)
    assert result.returncode == 0
    assert "provider 'cuda' cannot run here" in result.stderr
    chosen = re.search(r"using '(native|cpu)'", result.stderr)
    assert chosen, result.stderr
    plain = [sys.executable, *RILLET, *map(str, arguments), "--provider", chosen[1]]
    here = subprocess.run(plain, capture_output=True, text=True, check=True)
    assert result.stdout == here.stdout


@pytest.mark.usefixtures("no_gpu")
def test_doctor_distinguishes_compiled_in_from_working(package: Path) -> None:
    report = json.loads(python(package, *RILLET, "doctor", "--json").stdout)
    assert report["providers"]["cpu"]["works"]
    for name in ("cuda", "tensorrt"):
        assert not report["providers"][name]["works"]
        assert "NVIDIA driver" in report["providers"][name]["reason"]


SILENT = """
import json, sys
from rillet.runtime import EngineError
from rillet.runtime.engines.ort import providers
from rillet.runtime.engines.ort.device_engine import OnnxDeviceEngine
from rillet.runtime.bundle import Bundle
providers.driver_obstacle = lambda: None  # as if there were a driver, but no CUDA
try:
    OnnxDeviceEngine(Bundle.open(sys.argv[1]), "cuda").zero_state()
    message = "it ran"
except EngineError as error:
    message = str(error)
print(json.dumps(message))
"""


@pytest.mark.usefixtures("no_gpu")
def test_its_silent_fallback_is_detected(package: Path, small_bundle: Path) -> None:
    """Without our own check of the driver, the package makes a session on the CPU, no error."""
    result = python(package, "-c", SILENT, small_bundle)
    assert result.returncode == 0, result.stderr
    message = json.loads(result.stdout.splitlines()[-1])
    assert "fell back to CPUExecutionProvider without an error" in message


def test_the_package_knows_every_option(package: Path) -> None:
    """The name is in the provider's library, which refuses options that it does not know."""
    path = package / "onnxruntime" / "capi" / "libonnxruntime_providers_cuda.so"
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        unknown = [name for name in cuda_options(True) if content.find(name.encode()) < 0]
    assert unknown == []

"""What every benchmark writes beside its figures."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shlex
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


def describe() -> dict[str, Any]:
    """The machine and the versions that matter."""
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        **_versions(),
    }


_PACKAGES = (
    "numpy", "onnxruntime", "onnxruntime-gpu", "torch", "tensorrt", "tensorrt-rtx",
    "cuda-bindings", "rillet",
)  # fmt: skip


def _versions() -> dict[str, str]:
    """Versions of the packages that are installed of those that matter."""
    found = {}
    for name in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def write(path: Path | None, figures: Any) -> None:
    """Write figures, the command and the machine as JSON, where a path is given."""
    if path is not None:
        command = shlex.join(["python", *sys.argv])
        found = {"command": command, "machine": describe(), "figures": figures}
        path.write_text(json.dumps(found, indent=2) + "\n")

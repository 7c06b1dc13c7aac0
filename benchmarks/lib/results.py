"""Result files: a benchmark's figures, with its command and the machine it ran on."""

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

from rillet.runtime.files import write_atomic

__all__ = ["describe_machine", "write_results"]

_PACKAGES = (
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "torch",
    "tensorrt",
    "tensorrt-rtx",
    "cuda-bindings",
    "rillet",
)

_INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "asimd", "asimddp", "sve")
"""Vector instructions that decide how fast a model is."""


def describe_machine() -> dict[str, Any]:
    """The processor, the system, and the versions of the installed packages that matter."""
    processor, instructions = platform.processor(), ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        found = dict(line.split(":", 1) for line in cpuinfo.read_text().splitlines() if ":" in line)
        facts = {key.strip(): value.strip() for key, value in found.items()}
        processor = facts.get("model name", processor)
        # A virtual machine's processor has no model, but this tells one speed from another.
        flags = facts.get("flags", facts.get("Features", "")).split()
        instructions = " ".join(flag for flag in _INSTRUCTIONS if flag in flags)
    return {
        "processor": processor,
        "instructions": instructions,
        "cores": _usable_cores(),
        "system": platform.platform(),
        "python": platform.python_version(),
        **_versions(),
    }


def write_results(path: Path | None, figures: Any) -> None:
    """Write figures, command and machine as JSON; without a path, do nothing."""
    if path is not None:
        command = shlex.join(["python", *sys.argv])
        content = {"command": command, "machine": describe_machine(), "figures": figures}
        write_atomic(path, (json.dumps(content, indent=2) + "\n").encode())


def _usable_cores() -> int | None:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _versions() -> dict[str, str]:
    versions = {}
    for name in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions

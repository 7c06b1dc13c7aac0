"""What is imported without its extra says what to install, and is an ImportError still."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(("part", "missing"), [("train", "torch"), ("export", "onnx")])
def test_a_part_without_its_libraries(part: str, missing: str) -> None:
    code = (
        f"import sys; sys.modules['{missing}'] = None\n"
        "try:\n"
        f"    import rillet.{part}\n"
        "except ModuleNotFoundError as error:\n"
        "    print(error.name, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    expected = f"{missing} rillet.{part} needs {missing}, which is not installed; "
    assert done.stdout.startswith(expected)
    assert f"pip install 'rillet[{part}]'" in done.stdout

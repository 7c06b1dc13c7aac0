"""What docs/serving.md shows runs as it stands there, but for the port."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from rillet.runtime import Model
from rillet.runtime.cli.serve import serve_command
from rillet.runtime.serve.limits import Limits
from rillet.runtime.serve.metrics import Metrics
from rillet.runtime.serve.routes import ROUTES
from support.server import Server

PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()


def test_the_client_streams(
    server: Server, shakespeare: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openai", reason="the package openai is not installed")
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    code = block.replace("127.0.0.1:8080", f"127.0.0.1:{server.port}")
    exec(compile(code, "a block of the page", "exec"), {})  # noqa: S102
    assert capsys.readouterr().out == shakespeare.generate("ROMEO:", max_new_tokens=200, seed=3)


def test_the_curl_commands_run(server: Server) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    blocks = re.findall(r"```sh\n(curl .*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        command = shlex.split(
            block.replace("\\\n", "").replace("127.0.0.1:8080", f"127.0.0.1:{server.port}")
        )
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        assert "error" not in result.stdout
    assert len(json.loads(result.stdout)["id"]) == 32


def test_every_path_is_listed() -> None:
    for route in ROUTES:
        assert f"`{route.method} {route.path}`" in PAGE or f"`{route.path}`" in PAGE, route.path


def test_the_limits_are_those_of_the_program() -> None:
    defaults = {option.name: option.default for option in serve_command.params}
    options: dict[str, Any] = {
        "--rows": "rows",
        "--waiting": "waiting",
        "--max-tokens": "max_tokens",
        "--max-prompt-tokens": "max_prompt_tokens",
        "--max-seconds": "max_seconds",
        "--max-streams": "max_streams",
        "--idle-seconds": "idle_seconds",
    }
    for option, name in options.items():
        (shown,) = re.findall(rf"\| `{option}` \| ([\d,]+) \|", PAGE)
        assert float(shown.replace(",", "")) == defaults[name], option
    assert (Limits.body_bytes, defaults["max_body_bytes"]) == (1 << 20, 1 << 20)
    assert "| streams in `DIR` | | 100,000 of a model |" in PAGE
    assert (Limits.choices, Limits.saved_streams) == (64, 100_000)


def test_every_figure_is_listed(server: Server) -> None:
    names = set(re.findall(r"`(rillet_\w+)`", PAGE))
    metrics = Metrics()
    exported = {family.name for family in metrics.registry.collect()}
    assert {name.removesuffix("_total") for name in names} == exported

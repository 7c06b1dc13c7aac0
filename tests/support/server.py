"""A server of its own process, and requests to it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.command_line import RILLET

__all__ = ["NANO", "Reply", "Server", "serving"]

NANO = Path(__file__).parents[2] / "models" / "shakespeare-nano"


@dataclass
class Reply:
    """An answer: its status, headers and body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)

    @property
    def message(self) -> str:
        """What an error says."""
        return str(self.json["error"]["message"])


@dataclass
class Server:
    """A running server."""

    url: str
    process: subprocess.Popen[str]
    log: Path

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.rpartition(":")[2])

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        timeout: float = 60,
    ) -> Reply:
        """Send a request; a body that is no bytes goes as JSON."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        sent = {"Content-Type": "application/json", **(headers or {})}
        request = urllib.request.Request(self.url + path, data, sent, method=method)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:  # noqa: S310
                return Reply(answer.status, _lower(answer.headers), answer.read())
        except urllib.error.HTTPError as error:
            return Reply(error.code, _lower(error.headers), error.read())

    def post(self, path: str, body: Any = None, **more: Any) -> Reply:
        """Send a POST request."""
        return self.ask("POST", path, {} if body is None else body, **more)

    def figure(self, name: str) -> float:
        """A figure of ``/metrics``, over all its labels."""
        lines = self.ask("GET", "/metrics").body.decode().splitlines()
        found = [line for line in lines if line.partition("{")[0].partition(" ")[0] == name]
        return sum(float(line.rpartition(" ")[2]) for line in found)

    def wait_for(self, name: str, value: float) -> None:
        """Wait until a figure has a value."""
        end = time.monotonic() + 20
        while time.monotonic() < end:
            if self.figure(name) == value:
                return
            time.sleep(0.002)
        raise AssertionError(f"{name} is {self.figure(name)} and not {value}")

    def stop(self) -> int:
        """End it as a supervisor does; returns its status."""
        self.process.terminate()
        return self.process.wait(30)


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


@contextlib.contextmanager
def serving(log: Path, *arguments: object, program: Sequence[str] = RILLET) -> Iterator[Server]:
    """Run ``rillet serve`` at a free port."""
    command = [*program, "serve", *map(str, arguments), "--port", "0"]
    environment = {**os.environ, "PYTHONUTF8": "1"}
    with log.open("w") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
        )
    assert process.stdout is not None
    try:
        url = process.stdout.readline().strip()
        assert url.startswith("http://"), log.read_text()
        server = Server(url, process, log)
        for _ in range(200):
            with contextlib.suppress(OSError):
                if server.ask("GET", "/health").status == 200:
                    break
            time.sleep(0.05)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        process.stdout.close()

"""Clients that behave as badly as they can, for as long as you like: nothing breaks, nothing grows.

    python benchmarks/serve_storm.py BUNDLE [--seconds 600] [--clients 24] [--json FILE]

Clients ask at random, leave in the middle, send what is no request, open, feed, fork, save and
delete streams. A third of all texts are compared with the library's for their seed. Beside them,
schemathesis, if it is installed, asks for nonsense that it makes of ``/openapi.json``.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from lib.results import write_results
from lib.served import Serving
from rillet.runtime import Model, UnknownCharacterWarning, load

PROMPTS = ("ROMEO:", "", "KING HENRY:\nWhat", "A" * 900, "☂ umbrella", "\n\n\n")
MALFORMED = (
    b"",
    b"{",
    b"[]",
    b"null",
    b'{"prompt": 3}',
    b'{"max_tokens": 1e9}',
    b'{"prompt": [[]], "n": 0}',
    b'{"prompt": "\\ud800"}',
    b'{"temperature": 1e400}',
    b'{"logit_bias": {"0": -1e300}}',
    b"\xff\xfe" * 40,
    b"[" * 5_000,
)


class Client(threading.Thread):
    """One client, with random numbers of its own."""

    def __init__(self, storm: Storm, seed: int) -> None:
        super().__init__(daemon=True)
        self.storm, self.random = storm, random.Random(seed)  # noqa: S311 - the same each time

    def run(self) -> None:
        """Do one thing after another until time is up."""
        while time.monotonic() < self.storm.until:
            act = self.random.choice(
                [self.complete, self.complete, self.leave, self.mistake, self.use_stream]
            )
            try:
                act()
                self.storm.count(act.__name__)
            except (OSError, AssertionError) as error:
                self.storm.fail(f"{act.__name__}: {error}")

    def options(self) -> dict[str, Any]:
        """Random options."""
        kinds: list[dict[str, Any]] = [
            {},
            {"temperature": 0},
            {"stop": ["\n\n", "the"]},
            {"top_k": 5, "repetition_penalty": 1.1},
            {"presence_penalty": 0.5},
            {"min_p": 0.05, "temperature": 1.3},
        ]
        return {"seed": self.random.randrange(1 << 40), **self.random.choice(kinds)}

    def complete(self) -> None:
        """Ask for a text, and compare it with the library's."""
        prompt, options = self.random.choice(PROMPTS), self.options()
        count = self.random.choice([0, 1, 7, 60, 300])
        stream = self.random.random() < 0.5
        body = {"prompt": prompt, "max_tokens": count, "stream": stream, **options}
        status, data = self.storm.ask("POST", "/v1/completions", json.dumps(body).encode())
        if status == 429:
            return
        assert status == 200, data[:200]
        if stream:
            events = data.decode().strip().split("\n\n")
            assert events.pop() == "data: [DONE]"
            text = "".join(json.loads(event[6:])["choices"][0]["text"] for event in events)
        else:
            text = json.loads(data)["choices"][0]["text"]
        if self.random.random() < 0.33:
            expected = self.storm.model.generate(prompt, max_new_tokens=count, **options)
            assert text == expected, f"another text for {body}"
            self.storm.count("compared")

    def leave(self) -> None:
        """Go away in the middle of a text, or of a request."""
        body = json.dumps({"prompt": "A", "max_tokens": 4_000, "stream": True}).encode()
        head = (
            "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        request = head.encode() + body
        with socket.create_connection(("127.0.0.1", self.storm.port), 30) as connection:
            connection.sendall(request[: self.random.choice([20, len(request) - 5, len(request)])])
            connection.settimeout(self.random.random() * 0.2)
            try:
                for _ in range(self.random.randrange(5)):
                    connection.recv(1_000)
            except TimeoutError:
                pass

    def mistake(self) -> None:
        """Send what is no request for a text."""
        path = self.random.choice(["/v1/completions", "/v1/streams", "/v1/streams/x/feed", "/x"])
        status, data = self.storm.ask("POST", path, self.random.choice(MALFORMED))
        assert status < 500, f"{status} {data[:200]!r}"

    def use_stream(self) -> None:
        """Do with a stream all that can be done, and compare it with a session."""
        storm, options = self.storm, self.options()
        status, data = storm.ask("POST", "/v1/streams", b"{}")
        if status == 429:
            return
        path = f"/v1/streams/{json.loads(data)['id']}"
        storm.ask("POST", f"{path}/feed", json.dumps({"text": "ROMEO:"}).encode())
        body = json.dumps({"max_tokens": 40, **options}).encode()
        status, data = storm.ask("POST", f"{path}/completions", body)
        if status == 200:
            expected = storm.model.generate("ROMEO:", max_new_tokens=40, **options)
            assert json.loads(data)["choices"][0]["text"] == expected, "another text of a stream"
        status, state = storm.ask("GET", f"{path}/state")
        assert status == 200
        assert storm.ask("PUT", f"{path}/state", state)[0] == 200
        status, data = storm.ask("POST", f"{path}/fork")
        if status == 201:
            storm.ask("DELETE", f"/v1/streams/{json.loads(data)['id']}")
        assert storm.ask("DELETE", path)[0] == 200


class Storm:
    """All clients, and what they found."""

    def __init__(self, port: int, model: Model, seconds: float) -> None:
        self.port, self.model = port, model
        self.until = time.monotonic() + seconds
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []
        self._lock = threading.Lock()

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Send a request; no answer may be a fault of the server's."""
        headers = {"Content-Type": "application/json"}
        url = f"http://127.0.0.1:{self.port}{path}"
        request = urllib.request.Request(url, body, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            if error.code >= 500:
                self.fail(f"{method} {path}: {error.code}")
            return error.code, error.read()

    def count(self, what: str) -> None:
        """Count what was done."""
        with self._lock:
            self.counts[what] += 1

    def fail(self, what: str) -> None:
        """Note what went wrong."""
        with self._lock:
            self.failures.append(what)


def resident(process: int) -> float:
    """Megabytes that a process holds."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def nonsense(port: int, seconds: float) -> str:
    """Let schemathesis ask for what the description allows, and for what it does not."""
    if importlib.util.find_spec("schemathesis") is None:
        return "schemathesis is not installed"
    checks = "not_a_server_error,status_code_conformance,content_type_conformance"
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run"),
        f"http://127.0.0.1:{port}/openapi.json",
        *("--checks", checks, "--max-examples", "40", "--seed", "1", "--request-timeout", "60"),
        *("--phases", "examples,coverage,fuzzing", "--max-time", str(max(1, int(seconds)))),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if result.returncode == 0 else result.stdout[-6_000:] + result.stderr[-2_000:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", UnknownCharacterWarning)
    model = load(arguments.bundle)
    with (
        tempfile.TemporaryDirectory() as folder,
        Serving(arguments.bundle, "--sessions", folder, "--rows", 16, "--waiting", 8) as server,
    ):
        half = arguments.seconds / 2
        storms = [storm(server, model, half, arguments.clients, number) for number in range(2)]
        memory = [found["resident_mb"] for found in storms]
        said = nonsense(server.port, half)
        rows = server.figure("rillet_rows")
    counts = sum((found["counts"] for found in storms), Counter[str]())
    failures = [failure for found in storms for failure in found["failures"]]
    figures = {
        "seconds": arguments.seconds,
        "clients": arguments.clients,
        "counts": dict(counts),
        "resident_mb_at_half_time_and_end": memory,
        "rows_at_the_end": rows,
        "failures": failures[:20],
        "nonsense": said,
    }
    print(json.dumps(figures, indent=2))
    write_results(arguments.json, figures)
    if failures or said not in ("", "schemathesis is not installed") or rows:
        sys.exit(1)
    if memory[1] > memory[0] * 1.1 + 5:
        sys.exit(f"the server grew from {memory[0]:.0f} to {memory[1]:.0f} MB")


def storm(
    server: Serving, model: Model, seconds: float, clients: int, number: int
) -> dict[str, Any]:
    """Let the clients loose for a while; what they did, and what the server then holds."""
    weather = Storm(server.port, model, seconds)
    threads = [Client(weather, 1_000 * number + seed) for seed in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds + 120)
    server.wait_until_idle()
    return {
        "counts": weather.counts,
        "failures": weather.failures,
        "resident_mb": round(resident(server.process.pid), 1),
    }


if __name__ == "__main__":
    main()

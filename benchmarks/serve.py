"""The server under load: tokens a second, and how long clients wait, beside llama.cpp's.

    python benchmarks/serve.py [BUNDLE] [--clients 1,16,64,256] [--seconds 8] [--repetitions 3]
        [--llama PYTHON] [--json benchmarks/results/serving/loopback.json]

Clients on loopback ask for a streamed text of 200 tokens, and for another as soon as it has come.
They run in one process beside the server, so both share the machine's cores. Each figure is the
best of the repetitions. ``busy_cores_of_others`` is what other programs took meanwhile: compare
runs on an idle machine. PYTHON is an interpreter with
``pip install 'llama-cpp-python[server]' gguf``; its server runs a transformer of nanoGPT's size
with random weights, in the same run. It writes one text at a time, whoever else waits.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvloop

from lib.load_client import run_clients
from lib.results import write_results
from lib.served import Serving, cpu_seconds, wait_for_server
from rillet.runtime import load

ROOT = Path(__file__).parents[1]
NANO = ROOT / "models" / "shakespeare-nano"
TOKENS = 200
LLAMA_CLIENTS = 64
"""Beyond these, llama.cpp's clients would wait for minutes."""

Figures = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("bundle", type=Path, nargs="?", default=NANO)
    parser.add_argument("--clients", default="1,16,64,256")
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--llama", type=Path, metavar="PYTHON")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    clients = [int(number) for number in arguments.clients.split(",")]
    figures: Figures = {"seconds": arguments.seconds, "repetitions": arguments.repetitions}
    figures["library"] = {"tokens_per_second": library_rate(arguments.bundle)}
    print(f"the library alone, one stream: {figures['library']}")
    with Serving(arguments.bundle) as server:
        body = {"prompt": "ROMEO:", "max_tokens": TOKENS}
        figures["rillet"] = measure(server.port, server.process.pid, body, clients, arguments)
    if arguments.llama is not None:
        fewer = [number for number in clients if number <= LLAMA_CLIENTS]
        with llama_server(arguments.llama) as (port, process):
            body |= {"logit_bias": {"0": -100}}  # its end of text
            figures["llama.cpp"] = measure(port, process, body, fewer, arguments)
    write_results(arguments.json, figures)


def library_rate(bundle: Path) -> float:
    """Tokens a second of one stream in this process, at best."""
    model, best = load(bundle), 0.0
    for seed in range(5):
        session = model.session()
        session.feed("ROMEO:")
        began = time.perf_counter()
        session.generate(max_new_tokens=4_000, seed=seed)
        best = max(best, 4_000 / (time.perf_counter() - began))
    return round(best, 1)


def measure(
    port: int, process: int, body: dict[str, object], clients: list[int], how: argparse.Namespace
) -> Figures:
    """Figures of a server for each number of clients."""
    figures = {}
    for number in clients:
        tries = [trial(port, process, body, number, how.seconds) for _ in range(how.repetitions)]
        best = max(tries, key=lambda one: one["tokens_per_second"])
        figures[str(number)] = {**best, "tries": [one["tokens_per_second"] for one in tries]}
        print(f"{number:4} clients  {figures[str(number)]}", flush=True)
    return figures


def trial(
    port: int, process: int, body: dict[str, object], clients: int, seconds: float
) -> dict[str, float]:
    """One run of some clients."""
    taken, ours, all_of_it = cpu_seconds(process), time.process_time(), machine_seconds()
    load_seen = uvloop.run(run_clients(port, clients, seconds, body))
    taken, ours = cpu_seconds(process) - taken, time.process_time() - ours
    busy = (machine_seconds() - all_of_it - taken - ours) / load_seen.seconds
    return {
        **load_seen.figures(),
        "server_us_per_token": round(taken / max(load_seen.tokens, 1) * 1e6, 2),
        "busy_cores_of_others": round(max(busy, 0.0), 2),
    }


def machine_seconds() -> float:
    """Processor time that all programs together have taken."""
    fields = Path("/proc/stat").read_text().split("\n")[0].split()[1:]
    user, nice, system = (int(field) for field in fields[:3])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def llama_server(python: Path) -> Iterator[tuple[int, int]]:
    """llama.cpp's server from PyPI, with a model of nanoGPT's size; its port and process."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
        model = Path(folder) / "nano.gguf"
        maker = Path(__file__).parent / "lib" / "random_gguf.py"
        subprocess.run([str(python), str(maker), str(model)], check=True)
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        options = ("--n_ctx", "512", "--interrupt_requests", "false", "--port", str(port))
        process = subprocess.Popen(
            [str(python), "-m", "llama_cpp.server", "--model", str(model), *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_for_server(f"http://127.0.0.1:{port}/v1/models")
            yield port, process.pid
        finally:
            process.terminate()
            process.wait(30)


if __name__ == "__main__":
    main()

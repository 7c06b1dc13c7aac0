"""Clients that leave before their request is whole: counted as 499, and no server error."""

from __future__ import annotations

import socket
import time

import pytest

from support.server import Server

HEAD = "Host: localhost\r\nContent-Type: application/json\r\n"
PATHS = ("POST /v1/completions", "POST /v1/streams", f"PUT /v1/streams/{'a' * 32}/state")


def counted(server: Server, status: int) -> float:
    """Requests that ended with a status."""
    lines = server.ask("GET", "/metrics").body.decode().splitlines()
    wanted = f'status="{status}"'
    found = [line for line in lines if line.startswith("rillet_requests_total") and wanted in line]
    return sum(float(line.rpartition(" ")[2]) for line in found)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "rest",
    [
        "Content-Length: 100\r\n\r\n{",
        "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
        "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\nno size\r\n",
    ],
    ids=["length", "chunks", "malformed"],
)
def test_a_client_that_leaves_while_it_sends_is_no_error(
    server: Server, path: str, rest: str
) -> None:
    gone, failed = counted(server, 499), counted(server, 500)
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(f"{path} HTTP/1.1\r\n{HEAD}{rest}".encode())
        if "no size" in rest:
            client.recv(1 << 16)  # the server hangs up by itself
    end = time.monotonic() + 20
    while counted(server, 499) == gone and counted(server, 500) == failed:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert (counted(server, 499), counted(server, 500)) == (gone + 1, failed)
    log = server.log.read_text()
    assert "Traceback" not in log
    assert "ClientDisconnect" not in log

"""The load client of ``benchmarks/serve.py`` reads answers that come in any pieces."""

from __future__ import annotations

import asyncio

import pytest

from lib.load_client import Load, run_clients

REFUSED = b'HTTP/1.1 429 Too Many Requests\r\ncontent-length: 15\r\n\r\n{"error": null}'
EVENTS = b'data: {"choices": [{"text": "a"}]}\n\ndata: [DONE]\n\n'
ANSWER = (
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    + f"{len(EVENTS):x}\r\n".encode()
    + EVENTS
    + b"\r\n0\r\n\r\n"
)


def load_of(answer: bytes, size: int) -> Load:
    """What a client sees of a server that answers in pieces of so many bytes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(10_000):
            for at in range(0, len(answer), size):
                writer.write(answer[at : at + size])
                await asyncio.sleep(0.001)

    async def go() -> Load:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            return await run_clients(port, 1, 0.5, {})

    return asyncio.run(go())


@pytest.mark.parametrize("size", [7, 1_000])
def test_a_refusal_is_a_failure_and_is_read_to_its_end(size: int) -> None:
    load = load_of(REFUSED, size)
    assert load.failures > 3
    assert load.tokens == 0


@pytest.mark.parametrize("size", [7, 1_000])
def test_a_text_is_counted_in_any_pieces(size: int) -> None:
    load = load_of(ANSWER, size)
    assert load.tokens > 3
    assert load.failures == 0

"""Many clients in one process: each asks for a streamed completion and times what comes.

Only enough of HTTP is spoken to post a request and to see text arrive, so that the clients take
little of the machine that they share with the server. Events are counted by their bytes.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import cast

__all__ = ["Load", "percentile", "run_clients"]

_SIGN = b'"text":'


@dataclass
class Load:
    """What some clients saw.

    Attributes:
        seconds: How long they went on.
        tokens: Tokens that came, of all clients.
        firsts: Seconds from each request to its first text.
        gaps: Seconds between two arrivals of text, once for each token: tokens that arrive together
            have a gap of zero but for the first.
        failures: Requests that were not answered with 200.
        unanswered: Clients that had no text yet of their last request when time was up.
    """

    seconds: float = 0.0
    tokens: int = 0
    firsts: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    failures: int = 0
    unanswered: int = 0

    def figures(self) -> dict[str, float]:
        """Tokens a second, and times in milliseconds."""
        return {
            "tokens_per_second": round(self.tokens / self.seconds, 1),
            "first_ms_p50": round(percentile(self.firsts, 50) * 1e3, 3),
            "first_ms_p99": round(percentile(self.firsts, 99) * 1e3, 3),
            "between_ms_p50": round(percentile(self.gaps, 50) * 1e3, 3),
            "between_ms_p99": round(percentile(self.gaps, 99) * 1e3, 3),
            "arrivals_ms_p99": round(percentile([gap for gap in self.gaps if gap], 99) * 1e3, 3),
            "failures": self.failures,
            "unanswered": self.unanswered,
        }


def percentile(values: list[float], share: float) -> float:
    """The value below which a share of a list lies, in per cent; 0 of an empty list."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share / 100))] if ordered else 0.0


class _Client(asyncio.Protocol):
    """One connection, which asks again as soon as an answer is complete."""

    def __init__(self, request: bytes, load: Load) -> None:
        self._request, self._load = request, load
        self._text = _TextCounter()
        self._asked = self._last = 0.0
        self._is_over = False
        self.gone = asyncio.get_running_loop().create_future()

    def leave(self) -> None:
        """Go away: time is up."""
        self._is_over = True
        self._load.unanswered += not self._last
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._ask()

    def _ask(self) -> None:
        self._text = _TextCounter()
        self._asked, self._last = time.perf_counter(), 0.0
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        count = self._text.add(data)
        if count:
            if self._last:
                self._load.gaps.append(now - self._last)
            else:
                self._load.firsts.append(now - self._asked)
            self._load.gaps += [0.0] * (count - 1)
            self._load.tokens += count
            self._last = now
        if self._text.is_complete:
            self._load.failures += self._text.status != 200
            self._ask()

    def connection_lost(self, error: Exception | None) -> None:
        self._load.failures += not self._is_over
        self.gone.set_result(None)


def _is_whole(answer: bytes) -> bool:
    """Whether an answer of a known length has come to its end."""
    head, end, body = answer.partition(b"\r\n\r\n")
    fields = (line.partition(b":") for line in head.lower().split(b"\r\n"))
    length = next((int(value) for name, _, value in fields if name == b"content-length"), 0)
    return bool(end) and len(body) >= length


class _TextCounter:
    """Counts the characters of the texts of events, in an answer that comes in pieces."""

    def __init__(self) -> None:
        self.status = 0
        self.is_complete = self._is_done = False
        self._rest = b""

    def add(self, data: bytes) -> int:
        """Count what more bytes complete."""
        data = self._rest + data
        if not self.status:
            if len(data) < 12:
                self._rest = data
                return 0
            self.status = int(data[9:12])
        if self.status != 200:
            self._rest = data
            self.is_complete = _is_whole(data)
            return 0
        found = data.rfind(b"\n\n")
        end = found + 2 if found >= 0 else 0
        whole, self._rest = data[:end], data[end:]
        self._is_done = self._is_done or b"[DONE]" in whole
        self.is_complete = self._is_done and data.endswith(b"\r\n0\r\n\r\n")
        count = 0
        at = whole.find(_SIGN)
        while at >= 0:
            start = at + len(_SIGN)
            start += whole[start] == 0x20
            stop = start + 1
            while whole[stop] != 0x22:  # the text's closing quotation mark
                stop += 2 if whole[stop] == 0x5C else 1
            count += len(json.loads(whole[start : stop + 1]))
            at = whole.find(_SIGN, stop)
        return count


async def run_clients(
    port: int, clients: int, seconds: float, body: dict[str, object], mean_length: int = 200
) -> Load:
    """Let clients ask for texts over and over, and leave when time is up.

    Texts have half to one and a half times the mean length, each client's its own: texts that all
    end at once would all begin at once too. A character counts as a token: so it is with a model of
    characters.
    """
    load = Load()
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    running = []
    for number in range(clients):
        length = mean_length * (100 + number * 37 % 101 - 50) // 100
        request_body = {**body, "max_tokens": length, "seed": number, "stream": True}
        content = json.dumps(request_body).encode()
        head = (
            f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        request = head.encode() + content
        _, client = await loop.create_connection(
            lambda request=request: _Client(request, load),  # type: ignore[misc]
            "127.0.0.1",
            port,
        )
        running.append(client)
    await asyncio.sleep(seconds)
    load.seconds = time.perf_counter() - began
    for client in running:
        client.leave()
    await asyncio.gather(*(client.gone for client in running))
    return load

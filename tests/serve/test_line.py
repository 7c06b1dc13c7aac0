"""The line in front of a model: bounded, and fair between clients."""

from __future__ import annotations

import asyncio

import pytest

from rillet.runtime.serve.errors import RequestError
from rillet.runtime.serve.limits import Limits
from rillet.runtime.serve.line import Line


async def let_run() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_who_holds_the_fewest_rows_comes_first() -> None:
    async def go() -> list[str]:
        line, order = Line(Limits(rows=4, waiting=10)), []

        async def client(name: str) -> None:
            await line.enter(name, 1)
            order.append(name)

        await line.enter("greedy", 4)
        waiting = [asyncio.create_task(client("greedy")) for _ in range(3)]
        await let_run()
        waiting.append(asyncio.create_task(client("modest")))
        await let_run()
        assert line.waiting == 4
        for _ in range(4):
            line.leave("greedy")
            await let_run()
        await asyncio.gather(*waiting)
        assert (line.rows, line.waiting) == (4, 0)
        return order

    assert asyncio.run(go()) == ["modest", "greedy", "greedy", "greedy"]


def test_a_waiting_client_that_leaves_makes_room() -> None:
    async def go() -> None:
        line = Line(Limits(rows=1, waiting=1))
        await line.enter("a", 1)
        waiting = asyncio.create_task(line.enter("b", 1))
        await let_run()
        with pytest.raises(RequestError, match="the server is busy") as caught:
            await line.enter("c", 1)
        assert (caught.value.status, caught.value.retry_after) == (429, 1)
        waiting.cancel()
        await let_run()
        waiting = asyncio.create_task(line.enter("c", 1))
        await let_run()
        line.leave("a")
        await waiting
        # Admitted and cancelled in one turn of the loop, it gives its row back.
        last = asyncio.create_task(line.enter("d", 1))
        await let_run()
        line.leave("c")
        last.cancel()
        await let_run()
        assert (line.rows, line.waiting) == (0, 0)

    asyncio.run(go())


def test_a_row_given_back_passes_over_who_was_cancelled_in_the_same_turn() -> None:
    async def go() -> None:
        line = Line(Limits(rows=1, waiting=2))
        await line.enter("a", 1)
        gone = asyncio.create_task(line.enter("b", 1))
        patient = asyncio.create_task(line.enter("c", 1))
        await let_run()
        gone.cancel()
        line.leave("a")
        await patient
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert (line.rows, line.waiting) == (1, 0)

    asyncio.run(go())

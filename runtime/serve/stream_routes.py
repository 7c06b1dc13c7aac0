"""``/v1/streams``: what is done with a stream."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ..errors import RilletError
from ..streams.score import Score
from .bodies import NewStream, StreamCompletion, Text
from .completions import Wish, answered, prompts_of
from .event_stream import EventStream, unless_gone
from .reading import encode, read
from .saved_streams import to_bytes
from .served import Served, body_of, client_of
from .store import OpenStream
from .texts import Texts

__all__ = ["complete", "create", "delete", "feed", "fork", "learn", "listed", "load", "save"]


def shown(stream: OpenStream) -> dict[str, Any]:
    """A stream as JSON."""
    session = stream.session
    return {
        "id": stream.id,
        "object": "stream",
        "model": stream.host.name,
        "position": session.position,
        "learn": session.learn_mode,
        "memory": session.memory,
        "taught": session.taught,
    }


def _name(request: Request) -> str:
    return str(request.path_params["id"])


async def create(request: Request, served: Served) -> Response:
    """Open a stream."""
    body = await body_of(request, NewStream)
    host = served.host(body.model)
    session = await host.turns.call(
        lambda: host.model.session(body.learn, body.memory, body.taught)
    )
    stream = await served.store.create(host, session)
    return JSONResponse(shown(stream), 201)


async def listed(request: Request, served: Served) -> Response:
    """List the streams."""
    found = await served.store.listed()
    data = [{"id": name, "object": "stream", "model": host.name} for name, host in found]
    return JSONResponse({"object": "list", "data": data})


async def show(request: Request, served: Served) -> Response:
    """Describe a stream."""
    async with served.store.use(_name(request), changes=False) as stream:
        return JSONResponse(shown(stream))


async def delete(request: Request, served: Served) -> Response:
    """Delete a stream."""
    await served.store.delete(_name(request))
    return JSONResponse({"id": _name(request), "object": "stream", "deleted": True})


async def feed(request: Request, served: Served) -> Response:
    """Let a stream read a text."""
    body = await body_of(request, Text)
    async with served.store.use(_name(request)) as stream:
        host, session = stream.host, stream.session
        tokens, warning = await host.turns.call(lambda: encode(host.model, body.text, host.limits))
        work = host.turns.run(read(session, tokens, host.on_read))
        await unless_gone(request, work)
        return _read(stream, len(tokens), warning)


async def learn(request: Request, served: Served) -> Response:
    """Let a stream's memory read a text, and leave the stream where it is."""
    body = await body_of(request, Text)
    async with served.store.use(_name(request)) as stream:
        host, session = stream.host, stream.session

        def read_all() -> tuple[int, str | None]:
            _, warning = encode(host.model, body.text, host.limits)
            return session.learn(body.text), warning

        count, warning = await host.turns.call(read_all)
        host.on_read(count)
        return _read(stream, count, warning)


def _read(stream: OpenStream, tokens: int, warning: str | None) -> Response:
    warnings = {} if warning is None else {"warnings": [warning]}
    return JSONResponse({**shown(stream), "tokens": tokens, **warnings})


async def score(request: Request, served: Served) -> Response:
    """Measure how well a stream would predict a text."""
    body = await body_of(request, Text)
    async with served.store.use(_name(request), changes=False) as stream:
        host, session = stream.host, stream.session

        def measured() -> Score:
            encode(host.model, body.text, host.limits)
            return session.score(body.text)

        result = await host.turns.call(measured)
        host.on_read(result.tokens)
        return JSONResponse(result.to_dict())


async def fork(request: Request, served: Served) -> Response:
    """Open a twin of a stream, which continues on its own."""
    async with served.store.use(_name(request), changes=False) as stream:
        session = await stream.host.turns.call(stream.session.fork)
        twin = await served.store.create(stream.host, session)
    return JSONResponse(shown(twin), 201)


async def save(request: Request, served: Served) -> Response:
    """The stream as the file that :meth:`.Session.save` writes."""
    async with served.store.use(_name(request), changes=False) as stream:
        session = stream.session
        data = await stream.host.turns.call(lambda: to_bytes(session))
    headers = {"content-disposition": f'attachment; filename="{_name(request)}.state"'}
    return Response(data, media_type="application/octet-stream", headers=headers)


async def load(request: Request, served: Served) -> Response:
    """Replace a stream by a saved one, or add that under this id."""
    name, model = _name(request), request.query_params.get("model")
    owner = served.store.host_of(name) if model is None else None
    stream = await served.store.put(name, await request.body(), owner or served.host(model))
    return JSONResponse(shown(stream))


async def complete(request: Request, served: Served) -> Response:
    """Write from where a stream stands."""
    body = await body_of(request, StreamCompletion)
    async with AsyncExitStack() as stack:
        using = served.store.use(_name(request), changes=body.advance)
        stream = await stack.enter_async_context(using)
        host, session = stream.host, stream.session
        wish = await host.turns.call(lambda: Wish(host, body, prompts_of(body)))
        if not body.advance:
            session = await host.turns.call(session.fork)
            await stack.aclose()  # others may use it from here on
        mark = await host.turns.call(session.checkpoint) if body.advance else None
        try:
            texts = Texts(host, client_of(request), wish.plan(session))
            answer = await answered(request, wish, texts)
        except RilletError:
            # What an option asks for may show to be impossible at any token, and whoever is refused
            # must be able to ask again from the same place.
            if mark is not None:
                await host.turns.call(partial(session.rollback, mark))
            raise
        if isinstance(answer, EventStream):
            answer.events = _closing(answer.events, stack.pop_all())
        return answer


async def _closing(
    events: AsyncGenerator[bytes, None], stack: AsyncExitStack
) -> AsyncGenerator[bytes, None]:
    """Some events, after which a stream is free again."""
    async with stack:
        try:
            async for event in events:
                yield event
        finally:
            await events.aclose()

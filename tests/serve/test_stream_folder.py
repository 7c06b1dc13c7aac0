"""The folder of streams, when it is damaged, full or gone: who is told what."""

from __future__ import annotations

import asyncio
import resource
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rillet.runtime import Model, load
from support.server import NANO, Reply, Server, serving


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "kept"


@pytest.fixture
def keeper(tmp_path: Path, kept: Path) -> Iterator[Server]:
    """A server that saves its streams."""
    with serving(tmp_path / "log", NANO, "--sessions", kept) as server:
        yield server


def opened(server: Server) -> str:
    """The id of a new stream that has read something."""
    name = str(server.post("/v1/streams", {}).json["id"])
    assert server.post(f"/v1/streams/{name}/feed", {"text": "ROMEO:"}).status == 200
    return name


def listed(server: Server) -> list[str]:
    """The streams that are listed."""
    return [entry["id"] for entry in server.ask("GET", "/v1/streams").json["data"]]


def uses(name: str) -> list[tuple[str, str, Any]]:
    """Every way to use a stream that it must be read for."""
    path, text = f"/v1/streams/{name}", {"text": "A"}
    posts = [("feed", text), ("learn", text), ("score", text), ("fork", {}), ("completions", {})]
    return [
        ("GET", path, None),
        ("GET", f"{path}/state", None),
        *(("POST", f"{path}/{verb}", body) for verb, body in posts),
    ]


def is_told(answer: Reply, status: int, code: str, server: Server, kept: Path) -> None:
    """Check that a failure of the server's is told as one, and where to the operator alone."""
    error = answer.json["error"]
    assert (answer.status, error["type"], error["code"]) == (status, "server_error", code)
    assert str(kept) not in error["message"]
    assert str(kept) in server.log.read_text()
    assert "Traceback" not in server.log.read_text()


def test_a_damaged_stream_is_the_servers_fault(keeper: Server, kept: Path) -> None:
    name = opened(keeper)
    file = kept / NANO.name / f"{name}.state"
    with file.open("ab") as appended:
        appended.write(b"damage")
    for method, path, body in uses(name):
        answer = keeper.ask(method, path, body)
        is_told(answer, 500, "damaged_stream", keeper, kept)
        assert name in answer.message
    assert listed(keeper) == [name]
    assert keeper.ask("DELETE", f"/v1/streams/{name}").json["deleted"] is True
    assert not file.exists()
    assert listed(keeper) == []
    assert keeper.ask("DELETE", f"/v1/streams/{name}").status == 404


def test_a_damaged_stream_can_be_replaced(keeper: Server, kept: Path) -> None:
    name = opened(keeper)
    state = keeper.ask("GET", f"/v1/streams/{name}/state").body
    (kept / NANO.name / f"{name}.state").write_bytes(b"damage")
    assert keeper.ask("GET", f"/v1/streams/{name}").status == 500
    put = keeper.ask("PUT", f"/v1/streams/{name}/state", state)
    assert (put.status, put.json["position"]) == (200, 6)
    assert keeper.ask("GET", f"/v1/streams/{name}/state").body == state


def test_a_stream_of_another_model_says_so(keeper: Server, kept: Path) -> None:
    """The bundle of that name was replaced: no fault of the server's, and none to try again."""
    name = opened(keeper)
    file = kept / NANO.name / f"{name}.state"
    load(NANO.with_name("bible-nano")).session().save(file)
    for method, path, body in uses(name):
        answer = keeper.ask(method, path, body)
        assert (answer.status, answer.json["error"]["code"]) == (409, "other_model")
        assert name in answer.message
        assert "/" not in answer.message.removesuffix("with PUT /v1/streams/{id}/state")
    assert keeper.ask("DELETE", f"/v1/streams/{name}").json["deleted"] is True


def test_what_is_gone_is_not_listed(keeper: Server, kept: Path) -> None:
    name = opened(keeper)
    (kept / NANO.name / f"{'a' * 32}.state").mkdir()
    (kept / NANO.name / ("b" * 32)).touch()
    assert listed(keeper) == [name]
    (kept / NANO.name / f"{name}.state").unlink()
    assert listed(keeper) == []
    for method, path, body in uses(name):
        assert keeper.ask(method, path, body).status == 404
    assert keeper.ask("DELETE", f"/v1/streams/{name}").status == 404


@pytest.mark.parametrize("instead", ["file", "nothing"])
def test_a_folder_that_is_gone_is_a_storage_error(
    keeper: Server, kept: Path, tmp_path: Path, instead: str
) -> None:
    name = opened(keeper)
    kept.rename(tmp_path / "aside")
    if instead == "file":
        kept.touch()
    requests = [
        *uses(name),
        ("POST", "/v1/streams", {}),
        ("GET", "/v1/streams", None),
        ("DELETE", f"/v1/streams/{name}", None),
    ]
    for method, path, body in requests:
        answer = keeper.ask(method, path, body)
        is_told(answer, 507, "storage", keeper, kept)
        reason = "Not a directory" if instead == "file" else "No such file or directory"
        assert reason in answer.message
    if instead == "file":
        kept.unlink()
    (tmp_path / "aside").rename(kept)
    assert listed(keeper) == [name]
    assert keeper.ask("GET", f"/v1/streams/{name}").json["position"] == 6


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux limits another process")
def test_what_cannot_be_saved_has_not_happened(keeper: Server, kept: Path) -> None:
    name = opened(keeper)
    path = f"/v1/streams/{name}"
    state = keeper.ask("GET", f"{path}/state").body
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.prlimit(keeper.process.pid, resource.RLIMIT_FSIZE, (200_000, hard))
    for verb, body in (
        ("feed", {"text": "A"}),
        ("learn", {"text": "A new word"}),
        ("completions", {"prompt": "A"}),
        ("fork", {}),
    ):
        is_told(keeper.post(f"{path}/{verb}", body), 507, "storage", keeper, kept)
    is_told(keeper.post("/v1/streams", {}), 507, "storage", keeper, kept)
    put = keeper.ask("PUT", f"/v1/streams/{'c' * 32}/state", state)
    is_told(put, 507, "storage", keeper, kept)
    events = keeper.post(f"{path}/completions", {"stream": True}).body.decode()
    assert "the server's storage of streams fails" in events
    assert "[DONE]" not in events
    resource.prlimit(keeper.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
    assert listed(keeper) == [name]
    assert keeper.ask("GET", f"{path}/state").body == state
    assert keeper.figure("rillet_streams") == 1


def test_a_full_folder_still_gives_and_deletes(tmp_path: Path, shakespeare: Model) -> None:
    """Only new streams are refused: one that has left the memory comes back."""
    from rillet.runtime.serve.errors import RequestError
    from rillet.runtime.serve.host import Host
    from rillet.runtime.serve.limits import Limits
    from rillet.runtime.serve.metrics import Metrics
    from rillet.runtime.serve.store import StreamStore

    limits = Limits(saved_streams=2, streams=1)
    host = Host(NANO.name, shakespeare, limits, Metrics())

    async def check() -> None:
        store = StreamStore([host], limits, tmp_path)
        first = (await store.create(host, shakespeare.session())).id
        second = (await store.create(host, shakespeare.session())).id
        for name in (first, second):
            async with store.use(name) as stream:
                stream.session.feed("A")
        with pytest.raises(RequestError, match="there are 2 streams"):
            await store.create(host, shakespeare.session())
        await store.delete(first)
        await store.create(host, shakespeare.session())

    asyncio.run(check())
    host.turns.close()


def test_a_large_folder_stalls_nobody(
    tmp_path: Path, shakespeare: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is never read by the thread that answers."""
    from rillet.runtime.serve.host import Host
    from rillet.runtime.serve.limits import Limits
    from rillet.runtime.serve.metrics import Metrics
    from rillet.runtime.serve.saved_streams import StreamFolder
    from rillet.runtime.serve.store import StreamStore

    inner, readers = StreamFolder.names, set[threading.Thread]()

    def names(self: StreamFolder, host: Host) -> list[str]:
        readers.add(threading.current_thread())
        return inner(self, host)

    monkeypatch.setattr(StreamFolder, "names", names)
    host = Host(NANO.name, shakespeare, Limits(), Metrics())

    async def check() -> None:
        store = StreamStore([host], Limits(), tmp_path)
        stream = await store.create(host, shakespeare.session())
        assert await store.listed() == [(stream.id, host)]

    asyncio.run(check())
    host.turns.close()
    assert readers
    assert threading.main_thread() not in readers

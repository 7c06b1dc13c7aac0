"""Streams as resources: kept, fed, forked, saved, and shared by servers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rillet.runtime import Model
from support.server import NANO, Server, serving

LONG = 60_000
"""Tokens that take long enough for another request to come in between."""


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that writes long texts."""
    log = tmp_path_factory.mktemp("patient") / "log"
    with serving(log, NANO, "--max-tokens", LONG) as server:
        yield server


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sessions")


@pytest.fixture(scope="module")
def keeper(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that saves its streams, and keeps few in memory."""
    log = tmp_path_factory.mktemp("keeper") / "log"
    with serving(log, NANO, "--sessions", folder, "--max-streams", "3") as server:
        yield server


def opened(server: Server, **fields: Any) -> str:
    """A new stream's path."""
    answer = server.post("/v1/streams", fields)
    assert answer.status == 201, answer.body
    return f"/v1/streams/{answer.json['id']}"


def completed(server: Server, path: str, **fields: Any) -> str:
    """What a stream writes."""
    answer = server.post(f"{path}/completions", fields)
    assert answer.status == 200, answer.body
    return str(answer.json["choices"][0]["text"])


def test_a_stream_does_what_a_session_does(server: Server, shakespeare: Model) -> None:
    path, session = opened(server), shakespeare.session()
    fed = server.post(f"{path}/feed", {"text": "ROMEO:\n"}).json
    assert (fed["tokens"], fed["position"]) == (session.feed("ROMEO:\n"), session.position)
    text = completed(server, path, max_tokens=50, seed=3)
    assert text == session.generate(max_new_tokens=50, seed=3)
    learnt = server.post(f"{path}/learn", {"text": "Mirabelle, my cat, is Mirabelle."}).json
    assert learnt["tokens"] == session.learn("Mirabelle, my cat, is Mirabelle.")
    score = server.post(f"{path}/score", {"text": "Mirabelle"}).json
    assert score == session.score("Mirabelle").to_dict()
    text = completed(server, path, prompt=" Mira", max_tokens=37, seed=4, temperature=0.5)
    session.feed(" Mira")
    assert text == session.generate(max_new_tokens=37, seed=4, temperature=0.5)
    # Ended by a stop string in the middle of a round, it stands exactly where the session does.
    for seed in range(6):
        text = completed(server, path, max_tokens=300, seed=seed, stop=["e", "\n"])
        assert text == session.generate(max_new_tokens=300, seed=seed, stop=["e", "\n"])
    assert server.ask("GET", path).json["position"] == session.position
    assert server.ask("DELETE", path).json["deleted"] is True
    assert server.ask("GET", path).status == 404


def test_a_streamed_answer_ends_with_the_stream_free(server: Server, shakespeare: Model) -> None:
    path = opened(server, learn="all")
    session = shakespeare.session("all")
    for seed in range(3):
        answer = server.post(
            f"{path}/completions", {"stream": True, "max_tokens": 60, "seed": seed}
        )
        lines = answer.body.decode().strip().split("\n\n")
        assert lines[-1] == "data: [DONE]"
        texts = [json.loads(line[6:])["choices"][0]["text"] for line in lines[:-1]]
        assert "".join(texts) == session.generate(max_new_tokens=60, seed=seed)
    server.ask("DELETE", path)


def test_a_text_is_written_without_moving_the_stream(server: Server, shakespeare: Model) -> None:
    path, session = opened(server), shakespeare.session()
    for reader in (session.feed, lambda text: server.post(f"{path}/feed", {"text": text})):
        reader("ROMEO:\n")
    before = server.ask("GET", path).json
    twin = session.fork()
    twin.feed("What ")
    expected = twin.generate(max_new_tokens=40, seed=3)
    wish = {"prompt": "What ", "max_tokens": 40, "seed": 3, "advance": False}
    assert completed(server, path, **wish) == expected
    events = server.post(f"{path}/completions", {**wish, "stream": True}).body.decode()
    pieces = [json.loads(event[6:]) for event in events.split("\n\n")[:-2]]
    assert "".join(piece["choices"][0]["text"] for piece in pieces) == expected
    assert server.ask("GET", path).json == before
    assert completed(server, path, max_tokens=40, seed=3) == session.generate(
        max_new_tokens=40, seed=3
    )


def test_a_stream_that_does_not_move_is_free_while_it_is_written_from(patient: Server) -> None:
    path = opened(patient)
    answers: list[int] = []

    def write() -> None:
        wish = {"max_tokens": LONG, "advance": False}
        answers.append(patient.post(f"{path}/completions", wish).status)

    writer = threading.Thread(target=write)
    writer.start()
    patient.wait_for("rillet_rows", 1)
    assert patient.post(f"{path}/feed", {"text": "ROMEO:"}).status == 200
    writer.join()
    assert answers == [200]
    assert patient.ask("GET", path).json["position"] == 6


def test_a_fork_goes_its_own_way(server: Server) -> None:
    path = opened(server)
    server.post(f"{path}/feed", {"text": "KING:\n"})
    twin = f"/v1/streams/{server.post(f'{path}/fork').json['id']}"
    assert completed(server, twin, seed=1) == completed(server, path, seed=1)
    server.post(f"{twin}/feed", {"text": "Alas"})
    positions = [server.ask("GET", one).json["position"] for one in (path, twin)]
    assert positions == [22, 26]


def test_a_state_is_the_file_that_save_writes(
    server: Server, shakespeare: Model, tmp_path: Path
) -> None:
    path = opened(server)
    server.post(f"{path}/feed", {"text": "ROMEO:"})
    state = server.ask("GET", f"{path}/state").body
    (tmp_path / "served.state").write_bytes(state)
    session = shakespeare.session()
    session.feed("ROMEO:")
    session.save(tmp_path / "own.state")
    assert state == (tmp_path / "own.state").read_bytes()
    other = f"/v1/streams/{'0123456789abcdef' * 2}"
    put = server.ask("PUT", f"{other}/state", (tmp_path / "own.state").read_bytes())
    assert put.json["position"] == 6
    assert completed(server, other, seed=2) == session.generate(seed=2, max_new_tokens=16)
    damaged = bytearray(state)
    damaged[len(damaged) // 2] ^= 1
    for body in (bytes(damaged), b"", b"no stream"):
        answer = server.ask("PUT", f"{other}/state", body)
        assert answer.status == 400
        assert answer.json["error"]["code"] == "invalid_state"
        assert "/tmp" not in answer.message  # noqa: S108 - no paths of the server's
    assert server.ask("PUT", "/v1/streams/mine/state", state).status == 400
    assert server.ask("PUT", f"{other}/state?model=none", state).status == 404


def test_one_request_at_a_time_uses_a_stream(patient: Server) -> None:
    path = opened(patient)
    done: list[str] = []
    body = {"max_tokens": LONG, "seed": 1}
    writer = threading.Thread(
        target=lambda: done.append(completed(patient, path, **body)), daemon=True
    )
    writer.start()
    patient.wait_for("rillet_rows", 1)
    answer = patient.post(f"{path}/feed", {"text": "A"})
    assert answer.status == 409
    assert answer.headers["retry-after"] == "1"
    writer.join(60)
    assert len(done[0]) == LONG
    assert patient.post(f"{path}/feed", {"text": "A"}).json["position"] == LONG + 2


def test_a_stream_moves_between_servers(
    keeper: Server, folder: Path, tmp_path: Path, shakespeare: Model
) -> None:
    """Two servers share a folder, and each sees what the other has done."""
    path, session = opened(keeper), shakespeare.session()
    with serving(tmp_path / "log", NANO, "--sessions", folder) as other:
        for number, server in enumerate((keeper, other, other, keeper, other)):
            assert server.post(f"{path}/feed", {"text": "ROMEO:"}).status == 200
            session.feed("ROMEO:")
            text = completed(server, path, max_tokens=30, seed=number)
            assert text == session.generate(max_new_tokens=30, seed=number)
        assert other.ask("DELETE", path).status == 200
        assert keeper.ask("GET", path).status == 404


def test_streams_outlive_a_restart(tmp_path: Path, shakespeare: Model) -> None:
    session = shakespeare.session()
    with serving(tmp_path / "first", NANO, "--sessions", tmp_path / "kept") as server:
        path = opened(server)
        assert completed(server, path, prompt="A", seed=1) == _written(session, "A", 1)
        assert server.stop() in (0, -15)
    with serving(tmp_path / "second", NANO, "--sessions", tmp_path / "kept") as server:
        assert completed(server, path, prompt="B", seed=2) == _written(session, "B", 2)
        listed = server.ask("GET", "/v1/streams").json["data"]
        assert [entry["id"] for entry in listed] == [path.rpartition("/")[2]]


def test_sigterm_saves_a_stream_that_is_being_written(tmp_path: Path, shakespeare: Model) -> None:
    """Its text is cut off, and the stream stands after a token that it has written."""
    with serving(
        tmp_path / "log", NANO, "--sessions", tmp_path / "kept", "--max-tokens", "100000000"
    ) as server:
        path = opened(server)
        body = {"max_tokens": 100_000_000, "seed": 1}
        threading.Thread(
            target=lambda: server.post(f"{path}/completions", body), daemon=True
        ).start()
        server.wait_for("rillet_rows", 1)
        server.stop()
    (file,) = (tmp_path / "kept" / NANO.name).iterdir()
    session = shakespeare.restore(file)
    assert session.position > 100
    expected = shakespeare.session()
    expected.generate(max_new_tokens=session.position - 1, seed=1)
    assert session.generate(max_new_tokens=40, seed=2) == expected.generate(
        max_new_tokens=40, seed=2
    )


def _written(session: Any, prompt: str, seed: int) -> str:
    session.feed(prompt)
    return str(session.generate(max_new_tokens=16, seed=seed))


def test_streams_beyond_those_in_memory_are_read_again(keeper: Server, shakespeare: Model) -> None:
    paths = [opened(keeper) for _ in range(7)]
    for number, path in enumerate(paths):
        keeper.post(f"{path}/feed", {"text": "A" * (number + 1)})
    assert keeper.figure("rillet_streams") <= 3
    for number, path in enumerate(paths):
        assert keeper.ask("GET", path).json["position"] == number + 1


def test_without_a_folder_there_is_an_end_to_streams(tmp_path: Path) -> None:
    with serving(tmp_path / "log", NANO, "--max-streams", "2") as server:
        opened(server)
        path = opened(server)
        answer = server.post("/v1/streams", {})
        assert answer.status == 429
        assert answer.json["error"]["code"] == "too_many_streams"
        server.ask("DELETE", path)
        opened(server)


def test_a_feed_that_is_too_long_changes_nothing(server: Server) -> None:
    path = opened(server)
    answer = server.post(f"{path}/feed", {"text": "A" * 70_000})
    assert answer.status == 413
    assert server.ask("GET", path).json["position"] == 0
    assert server.post(f"{path}/feed", {"text": "A" * 60_000}).json["position"] == 60_000


def test_an_id_is_no_path(server: Server) -> None:
    for name in ("..", "%2e%2e", "..%2f..%2fetc%2fpasswd", "A" * 32, "0" * 31):
        assert server.ask("GET", f"/v1/streams/{name}").status == 404

"""Who may come in, and how much they may ask for."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from support.command_line import here
from support.server import NANO, Server, serving

KEY = "a-key-of-letters"
HEADER = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a key, for all the world, and small limits."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "keys").write_text(f"another\n{KEY}\n")
    options = ("--rows", 2, "--waiting", 2, "--max-body-bytes", 2_048, "--max-prompt-tokens", 900)
    key = ("--host", "0.0.0.0", "--api-key-file", folder / "keys")  # noqa: S104 - with a key
    page = ("--cors-origin", "https://page.example", "--max-tokens", 100_000_000)
    with serving(folder / "log", NANO, *key, *options, *page, "--max-seconds", 2) as server:
        yield server


def test_a_key_is_asked_for(guarded: Server) -> None:
    wrong: list[dict[str, str]] = [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": "Bearer"},
        {"Authorization": f"Bearer {KEY}x"},
    ]
    for path in ("/v1/models", "/v1/completions", "/metrics", "/props", "/v1/streams", "/nowhere"):
        for headers in wrong:
            answer = guarded.ask("GET", path, headers=headers)
            assert answer.status == 401, path
            assert answer.json["error"]["type"] == "authentication_error"
            assert answer.headers["www-authenticate"] == "Bearer"
    assert guarded.ask("GET", "/v1/models", headers=HEADER).status == 200
    assert (
        guarded.ask("GET", "/v1/models", headers={"Authorization": "Bearer another"}).status == 200
    )
    for path in ("/", "/health", "/openapi.json"):
        assert guarded.ask("GET", path).status == 200


def test_an_address_for_others_wants_a_key() -> None:
    result = here("serve", NANO, "--host", "0.0.0.0")  # noqa: S104 - refused
    assert result.returncode == 2
    assert "--api-key-file" in result.stderr


def test_a_file_without_keys_is_refused(tmp_path: Path) -> None:
    for content in ("", "\n \n", "two words\n", "schlüssel\n"):
        (tmp_path / "keys").write_text(content)
        result = here("serve", NANO, "--api-key-file", tmp_path / "keys")
        assert result.returncode == 2
        assert "holds no keys" in result.stderr
    assert here("serve", NANO, "--api-key-file", tmp_path / "none").returncode == 1


def test_two_models_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / NANO.name).symlink_to(NANO)
    result = here("serve", NANO, tmp_path / NANO.name)
    assert result.returncode == 2
    assert "two bundles are called 'shakespeare-nano'" in result.stderr


def test_a_port_in_use_is_named(server: Server) -> None:
    result = here("serve", NANO, "--port", server.port)
    assert result.returncode == 2
    assert f"cannot listen at 127.0.0.1 port {server.port}" in result.stderr


def test_a_page_of_another_name_is_refused(server: Server) -> None:
    """A name that leads to this machine: DNS rebinding."""
    for host in ("evil.example", f"evil.example:{server.port}"):
        assert server.ask("GET", "/v1/models", headers={"Host": host}).status == 403
    for host in ("localhost", f"127.0.0.1:{server.port}", f"[::1]:{server.port}"):
        assert server.ask("GET", "/v1/models", headers={"Host": host}).status == 200


def test_only_pages_that_were_named_may_call(server: Server, guarded: Server) -> None:
    origin = {"Origin": "https://page.example", **HEADER}
    assert "access-control-allow-origin" not in server.ask("GET", "/health", headers=origin).headers
    allowed = guarded.ask("GET", "/v1/models", headers=origin).headers
    assert allowed["access-control-allow-origin"] == "https://page.example"
    other = guarded.ask("GET", "/v1/models", headers={**origin, "Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in other.headers


def test_what_is_too_long_is_refused(guarded: Server) -> None:
    answer = guarded.post("/v1/completions", {"prompt": "A" * 1_000}, headers=HEADER)
    assert answer.status == 413
    assert "1,000 tokens" in answer.message
    answer = guarded.post("/v1/completions", {"prompt": "A" * 3_000}, headers=HEADER)
    assert answer.status == 413
    assert "2,048 bytes" in answer.message


def test_a_text_ends_when_its_time_is_over(guarded: Server) -> None:
    body = {"prompt": "A", "max_tokens": 100_000_000}
    answer = guarded.post("/v1/completions", body, headers=HEADER)
    assert answer.json["choices"][0]["finish_reason"] == "length"
    assert answer.json["usage"]["completion_tokens"] > 100


def test_too_many_at_a_time_are_sent_away(guarded: Server) -> None:
    """Two write, two wait, and the others may try again."""

    def ask(seed: int) -> tuple[int, str | None]:
        body = {"prompt": "A", "max_tokens": 100_000_000, "seed": seed}
        answer = guarded.post("/v1/completions", body, headers=HEADER)
        if answer.status == 429:
            assert answer.json["error"]["type"] == "rate_limit_error"
        return answer.status, answer.headers.get("retry-after")

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(ask, range(8)))
    assert sorted(answers, key=str) == [(200, None)] * 4 + [(429, "1")] * 4


def test_texts_of_one_request_are_bounded(guarded: Server) -> None:
    assert guarded.post("/v1/completions", {"n": 3}, headers=HEADER).status == 400
    assert guarded.post("/v1/completions", {"n": 2}, headers=HEADER).status == 200


def test_the_log_has_numbers_and_no_texts(guarded: Server) -> None:
    body = {"prompt": "Mirabelle", "max_tokens": 3, "stop": "Esmeralda"}
    answer = guarded.post("/v1/completions", body, headers=HEADER)
    guarded.post("/v1/completions", {"prompt": ["Mirabelle", 3]}, headers=HEADER)
    guarded.ask("GET", "/v1/streams/Mirabelle?secret=Esmeralda", headers=HEADER)
    number = answer.headers["x-request-id"]
    guarded.post("/v1/completions", {"max_tokens": 1}, headers=HEADER)
    log = guarded.log.read_text()
    assert f"{number} POST /v1/completions 200" in log
    for secret in ("Mirabelle", "Esmeralda", KEY):
        assert secret not in log


def test_a_long_prompt_holds_nobody(server: Server) -> None:
    """While sixty thousand tokens are read, short requests come and go."""
    long = {"prompt": "A" * 60_000, "max_tokens": 1}
    done: list[Any] = []
    reader = threading.Thread(target=lambda: done.append(server.post("/v1/completions", long)))
    reader.start()
    short = 0
    while not done:
        assert server.post("/v1/completions", {"prompt": "B", "max_tokens": 8}).status == 200
        short += not done
    reader.join()
    assert done[0].status == 200
    assert short >= 3


def test_the_description_names_every_path(server: Server) -> None:
    description = server.ask("GET", "/openapi.json").json
    assert description["openapi"].startswith("3.1")
    operations = [
        operation for path in description["paths"].values() for operation in path.values()
    ]
    assert len(operations) >= 18
    assert all(operation["summary"] and operation["responses"] for operation in operations)
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    references = set(json.dumps(description).split('"#/components/schemas/')[1:])
    names = {reference.partition('"')[0] for reference in references}
    assert names == set(description["components"]["schemas"]) & names

"""Options that can never work are refused before anything is served."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.command_line import here
from support.server import NANO, serving


@pytest.mark.parametrize("option", ["--max-seconds", "--idle-seconds"])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-1", "soon"])
def test_seconds_are_a_number(option: str, value: str) -> None:
    result = here("serve", NANO, option, value)
    assert result.returncode == 2
    assert option in result.stderr
    assert value in result.stderr
    assert not result.stdout


@pytest.mark.parametrize(
    "origin",
    [
        "x",
        "",
        "null",
        "page.example",
        "https://page.example/",
        "https://page.example/path",
        "https://Page.example",
        "https://page.example:443",
        "http://page.example:80",
        "https://page.example:port",
        "https://user@page.example",
        "https://a.example,https://b.example",
        "https://",
        "https://*.example",
    ],
)
def test_an_origin_is_what_browsers_send(origin: str) -> None:
    result = here("serve", NANO, "--cors-origin", "https://page.example", "--cors-origin", origin)
    assert result.returncode == 2
    assert f"--cors-origin is {origin!r}" in result.stderr
    assert not result.stdout


def test_origins_that_browsers_send_are_taken() -> None:
    from rillet.runtime.serve.run import checked_origins

    origins = [
        "https://page.example",
        "http://localhost:3000",
        "http://127.0.0.1:8000",
        "http://[::1]:3000",
        "chrome-extension://abcdefghijklmnop",
        "https://xn--bcher-kva.example",
        "*",
    ]
    assert checked_origins(origins) == origins


def test_a_folder_that_is_none_is_refused_before_the_address_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = here("serve", NANO, "--port", 0, "--sessions", tmp_path / "file")
    assert result.returncode == 1
    assert not result.stdout
    assert str(tmp_path / "file") in result.stderr
    assert "Traceback" not in result.stderr


def test_a_link_to_a_bundle_has_its_own_name(tmp_path: Path) -> None:
    """What it leads to changes when the bundle is updated; clients and streams keep the name."""
    (tmp_path / "current").symlink_to(NANO)
    with serving(tmp_path / "log", tmp_path / "current") as server:
        assert [model["id"] for model in server.ask("GET", "/v1/models").json["data"]] == [
            "current"
        ]

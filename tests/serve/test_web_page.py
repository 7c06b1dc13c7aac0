"""The page at ``/``, in a real browser without a screen."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rillet.runtime import Model
from support.server import Server

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


class Browser:
    """A browser, driven over the WebDriver protocol."""

    def __init__(self, url: str, profile: Path) -> None:
        self._url = url
        options = {"args": [*FLAGS, f"--user-data-dir={profile}"]}
        wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}}
        session = self._ask("POST", "/session", wanted)["sessionId"]
        self._path = f"/session/{session}"

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, method=method)  # noqa: S310
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            return json.load(answer)["value"]

    def open(self, url: str) -> None:
        """Go to a page."""
        self._ask("POST", f"{self._path}/url", {"url": url})

    def run(self, script: str) -> Any:
        """Run a script; returns what it returns."""
        return self._ask("POST", f"{self._path}/execute/sync", {"script": script, "args": []})

    def wait_for(self, script: str) -> Any:
        """Wait until a script returns something true."""
        for _ in range(300):
            if value := self.run(script):
                return value
            time.sleep(0.1)
        raise AssertionError(script)

    def close(self) -> None:
        """End it."""
        self._ask("DELETE", self._path)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    driver = shutil.which("chromedriver")
    if driver is None or shutil.which("chromium") is None:
        pytest.skip("chromium and chromedriver are not installed")
    process = subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if "successfully on port " in line:
                port = line.rpartition(" ")[2].strip(".\n")
                break
        browser = Browser(f"http://127.0.0.1:{port}", tmp_path_factory.mktemp("profile"))
        yield browser
        browser.close()
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


TEXT = "return document.getElementById('text').textContent"
STATUS = "return document.getElementById('status').textContent"


def write(browser: Browser, server: Server, **fields: object) -> None:
    browser.open(f"{server.url}/")
    browser.wait_for("return document.getElementById('model').value")
    for name, value in fields.items():
        browser.run(f"document.getElementById({name!r}).value = {json.dumps(value)}")
    browser.run("document.getElementById('write').click()")


def test_a_prompt_is_continued(browser: Browser, server: Server, shakespeare: Model) -> None:
    write(browser, server, prompt="ROMEO:", tokens=120, seed=3, temperature=0.8)
    browser.wait_for(f"{STATUS}.startsWith('120 tokens')")
    expected = shakespeare.generate("ROMEO:", max_new_tokens=120, seed=3, temperature=0.8)
    assert browser.run(TEXT) == "ROMEO:" + expected


def test_it_stops_when_told_to(browser: Browser, server: Server) -> None:
    write(browser, server, prompt="ROMEO:", tokens=4_096)
    browser.wait_for(f"{TEXT}.length > 20")
    browser.run("document.getElementById('stop').click()")
    browser.wait_for(f"{STATUS} !== 'Writing.'")
    server.wait_for("rillet_rows", 0)


def test_an_error_is_told(browser: Browser, server: Server) -> None:
    write(browser, server, prompt="ROMEO:", tokens=10_000)
    browser.wait_for(f"{STATUS}.includes('max_tokens is 10,000')")


def test_it_can_be_used_without_eyes_or_a_mouse(browser: Browser, server: Server) -> None:
    browser.open(f"{server.url}/")
    unlabelled = "return [...document.querySelectorAll('input, select, textarea')]"
    assert browser.run(f"{unlabelled}.filter((field) => !field.labels.length).length") == 0
    assert browser.run("return document.documentElement.lang") == "en"
    assert browser.run("return document.getElementById('status').getAttribute('role')") == "status"
    schemes = "return getComputedStyle(document.documentElement).colorScheme"
    assert browser.run(schemes) == "light dark"
    page = server.ask("GET", "/")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert b"http://" not in page.body
    assert b"https://" not in page.body

"""The page at ``/``, in a real browser without a screen."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rillet.runtime import Model
from support.server import NANO, Server, serving

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


class Browser:
    """A browser, driven over the WebDriver protocol."""

    def __init__(self, url: str, profile: Path) -> None:
        self._url = url
        options = {"args": [*FLAGS, f"--user-data-dir={profile}"]}
        logging = {"browser": "WARNING"}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": logging}
        asked = {"capabilities": {"alwaysMatch": wanted}}
        session = self._ask("POST", "/session", asked)["sessionId"]
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

    def complaints(self) -> list[str]:
        """What the page has complained of since the last call."""
        entries = self._ask("POST", f"{self._path}/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries]

    def resize(self, width: int, height: int) -> None:
        """Show the page on a screen of this size."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": True}
        command = {"cmd": "Emulation.setDeviceMetricsOverride", "params": size}
        self._ask("POST", f"{self._path}/goog/cdp/execute", command)

    def close(self) -> None:
        """End it."""
        self._ask("DELETE", self._path)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    driver = shutil.which("chromedriver")
    if driver is None or shutil.which("chromium") is None:
        pytest.skip("chromium is not installed: apt-get install chromium chromium-driver")
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


READY = "return document.documentElement.dataset.ready"
OUTPUT = "return document.getElementById('output').textContent"
STATUS = "return document.getElementById('status').textContent"
WRITTEN = "return document.getElementById('written').textContent"
TAUGHT = "return !document.getElementById('forget').disabled"
SUGGESTED = "[...document.querySelectorAll('#suggestions button')].map((one) => one.textContent)"

PROMPT = "ROMEO:\nWhat say'st thou, "
NOTES = "Our cat is called Mirabelle. Mirabelle sleeps on the warm stove.\n" * 4


def visit(browser: Browser, server: Server, place: str = "/") -> None:
    browser.open("about:blank")
    browser.complaints()
    browser.open(server.url + place)
    browser.wait_for(READY)


def fill(browser: Browser, **fields: object) -> None:
    """Type into fields."""
    for name, value in fields.items():
        field = f"const field = document.getElementById({name!r}); "
        typed = "field.dispatchEvent(new Event('input'))"
        browser.run(f"{field} field.value = {json.dumps(value)}; {typed}")


def click(browser: Browser, name: str) -> None:
    """Press a button, once it can be pressed."""
    browser.wait_for(f"return !document.getElementById({name!r}).disabled")
    browser.run(f"document.getElementById({name!r}).click()")


def write(browser: Browser, **fields: object) -> None:
    fill(browser, **fields)
    click(browser, "go")


def streams(server: Server, **more: Any) -> list[Any]:
    found: list[Any] = server.ask("GET", "/v1/streams", **more).json["data"]
    return found


def wait_for_streams(server: Server, count: int) -> None:
    """Wait until only so many streams are left: the page deletes what it has done with."""
    for _ in range(200):
        if len(streams(server)) == count:
            return
        time.sleep(0.05)
    raise AssertionError(streams(server))


def test_a_text_is_continued(browser: Browser, server: Server, shakespeare: Model) -> None:
    visit(browser, server)
    write(browser, text=PROMPT, tokens=120, seed=3, temperature=0.8)
    browser.wait_for(f"{WRITTEN}.startsWith('120 tokens in ')")
    expected = shakespeare.generate(PROMPT, max_new_tokens=120, seed=3, temperature=0.8)
    assert browser.run(OUTPUT) == expected
    assert "156,776 parameters" in browser.run(STATUS)
    assert browser.complaints() == []
    assert streams(server) == []


def test_it_stops_when_told_to(browser: Browser, server: Server) -> None:
    visit(browser, server)
    write(browser, text="ROMEO:", tokens=4_096)
    browser.wait_for(f"{OUTPUT}.length > 20")
    click(browser, "stop")
    browser.wait_for(f"{WRITTEN}.startsWith('Stopped after ')")
    server.wait_for("rillet_rows", 0)
    assert browser.run("return !document.getElementById('go').disabled")


def test_it_suggests_what_is_likeliest(
    browser: Browser, server: Server, shakespeare: Model
) -> None:
    visit(browser, server)
    fill(browser, text="JULIET:\nO Rome")
    likeliest = shakespeare.generate("JULIET:\nO Rome", max_new_tokens=24, temperature=0)
    word = re.match(r"\W?[\w'-]*", likeliest)
    assert word is not None
    shown = word[0].replace("\n", "⏎").replace(" ", "␣")
    browser.wait_for(f"return {SUGGESTED}[0] === {json.dumps(shown)}")
    assert browser.run(f"return {SUGGESTED}.length") == 3
    browser.run("document.querySelector('#suggestions button').click()")
    text = browser.run("return document.getElementById('text').value")
    assert text == "JULIET:\nO Rome" + word[0]
    assert browser.complaints() == []


def test_what_it_is_taught_survives_a_reload(
    browser: Browser, server: Server, shakespeare: Model
) -> None:
    visit(browser, server)
    fill(browser, notes=NOTES)
    click(browser, "learn")
    browser.wait_for(TAUGHT)
    learnt = browser.run("return document.getElementById('learnt').textContent")
    found = re.search(r"([\d.]+) with the memory, ([\d.]+) without", learnt)
    assert found is not None
    assert float(found[1]) < float(found[2])
    wait_for_streams(server, 1)

    address = browser.run("return location.hash")
    visit(browser, server, f"/{address}")
    assert browser.run(TAUGHT)
    write(browser, text="Our cat ", tokens=100, seed=5, temperature=0.5)
    browser.wait_for(f"{WRITTEN}.startsWith('100 tokens in ')")
    session = shakespeare.session()
    session.learn(NOTES)
    session.feed("Our cat ")
    expected = session.generate(max_new_tokens=100, seed=5, temperature=0.5)
    assert browser.run(OUTPUT) == expected
    wait_for_streams(server, 1)

    write(browser, tokens=4_096)
    browser.wait_for(f"{OUTPUT}.length > 20")
    click(browser, "stop")
    wait_for_streams(server, 1)
    click(browser, "forget")
    wait_for_streams(server, 0)
    assert browser.run("return location.hash") == ""
    # A stream that is gone is no obstacle.
    visit(browser, server, f"/{address}")
    assert not browser.run(TAUGHT)


def test_a_reading_that_is_stopped_leaves_nothing(browser: Browser, server: Server) -> None:
    visit(browser, server)
    fill(browser, notes=NOTES * 40)
    click(browser, "learn")
    browser.wait_for("return document.querySelector('#loss .with')")
    click(browser, "stop")
    browser.wait_for("return document.getElementById('learnt').textContent.startsWith('Stopped')")
    wait_for_streams(server, 0)
    assert not browser.run(TAUGHT)


def test_an_error_is_told(browser: Browser, server: Server) -> None:
    visit(browser, server)
    write(browser, text="ROMEO:", tokens=10_000)
    browser.wait_for(f"{STATUS}.includes('max_tokens is 10,000')")


def test_the_key_is_asked_for(browser: Browser, tmp_path: Path, shakespeare: Model) -> None:
    (tmp_path / "keys").write_text("sesame\n")
    with serving(tmp_path / "log", NANO, "--api-key-file", tmp_path / "keys") as server:
        browser.open(server.url)
        browser.wait_for("return !document.getElementById('key-form').hidden")
        assert "the key is missing or wrong" in browser.run(STATUS)
        assert browser.run("return document.getElementById('go').disabled")
        submit = "document.getElementById('key-form').requestSubmit()"
        fill(browser, key="wrong")
        browser.run(f"document.getElementById('status').textContent = ''; {submit}")
        browser.wait_for(f"{STATUS}.includes('the key is missing or wrong')")
        fill(browser, key="sesame")
        browser.run(submit)
        browser.wait_for(READY)
        assert browser.run("return document.getElementById('key-form').hidden")
        write(browser, text=PROMPT, tokens=50, seed=3, temperature=0)
        browser.wait_for(f"{WRITTEN}.startsWith('50 tokens in ')")
        expected = shakespeare.generate(PROMPT, max_new_tokens=50, temperature=0)
        assert browser.run(OUTPUT) == expected
        stored = "return localStorage.length + sessionStorage.length + document.cookie.length"
        assert browser.run(stored) == 0
        assert "sesame" not in browser.run("return location.href")


def test_it_fits_a_phone(browser: Browser, server: Server) -> None:
    browser.resize(360, 740)
    visit(browser, server)
    write(browser, text=PROMPT, tokens=50)
    browser.wait_for(WRITTEN)
    page = "document.documentElement"
    assert browser.run("return innerWidth") == 360
    assert browser.run(f"return {page}.scrollWidth - {page}.clientWidth") == 0


def test_it_can_be_used_without_eyes_or_a_mouse(browser: Browser, server: Server) -> None:
    visit(browser, server)
    unlabelled = "return [...document.querySelectorAll('input, select, textarea')]"
    assert browser.run(f"{unlabelled}.filter((field) => !field.labels.length).length") == 0
    assert browser.run("return document.documentElement.lang") == "en"
    assert browser.run("return document.getElementById('status').getAttribute('role')") == "status"
    schemes = "return getComputedStyle(document.documentElement).colorScheme"
    assert browser.run(schemes) == "light dark"


def test_the_page_asks_nobody_else(server: Server) -> None:
    page = server.ask("GET", "/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    kinds = {"html": "text/html", "js": "text/javascript", "css": "text/css"}
    names = re.findall(rb"(?:href|src)=\"([a-z.]+)\"", page.body)
    scripts = (b"engine.js", b"notes.js", b"notes.txt")
    for name in (b"", *names, *scripts):
        answer = server.ask("GET", f"/{name.decode()}")
        assert answer.status == 200, name
        assert answer.headers["content-security-policy"] == policy
        kind = kinds.get(name.decode().rpartition(".")[2] or "html")
        assert kind is None or answer.headers["content-type"].startswith(kind)
        text = answer.body.replace(b'xmlns="http://www.w3.org/2000/svg"', b"")
        assert b"http://" not in text
        assert b"https://" not in text

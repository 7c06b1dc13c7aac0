"""docs/troubleshooting.md has an entry for each error message and no others."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rillet.runtime import RilletError, load

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
ENTRIES = re.findall(
    r"^### ([^\n]+)\n\n```text\n(.*?)\n```\n\n(.*?)(?=^#|\Z)", PAGE, re.DOTALL | re.M
)
WRITTEN = [line for _, block, _ in ENTRIES for line in block.splitlines()]


@pytest.fixture(scope="module")
def raised() -> dict[str, list[str]]:
    """Every error message in the sources, with its places."""
    command = [sys.executable, str(ROOT / "scripts" / "list_errors.py"), "--json"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    found: dict[str, list[str]] = json.loads(result.stdout)
    return found


def test_each_message_has_an_entry(raised: dict[str, list[str]]) -> None:
    missing = {text: places for text, places in raised.items() if text not in WRITTEN}
    assert not missing, "docs/troubleshooting.md lacks\n" + "\n".join(
        f"{text}    ({', '.join(places)})" for text, places in missing.items()
    )


def test_each_message_is_still_raised(raised: dict[str, list[str]]) -> None:
    gone = [text for text in WRITTEN if text not in raised]
    assert not gone, "nothing raises any more:\n" + "\n".join(gone)


def test_each_message_has_one_entry() -> None:
    assert len(WRITTEN) == len(set(WRITTEN))


def test_each_entry_says_what_to_do() -> None:
    assert len(ENTRIES) == PAGE.count("\n### ")
    titles = [title for title, _, _ in ENTRIES]
    assert len(titles) == len(set(titles))
    assert all(len(advice.split()) >= 5 for _, _, advice in ENTRIES)


def test_the_script_sees_what_is_raised(raised: dict[str, list[str]]) -> None:
    """One message of each form: plain, with values, with a constant, concatenated."""
    for text in (
        "the session has no generation to resume; begin one with stream()",
        "temperature is …; it must be 0 (greedy) or above, such as 0.8",
        "… is damaged: its hash is not the recorded one; delete the token file and its .json file "
        "to rebuild them",
        "leak_min is … but leak_max is …; leak_min must not exceed leak_max",
    ):
        assert text in raised


def test_a_real_message_finds_its_entry(tmp_path: Path) -> None:
    """Several entries may match, since some are mostly values; the most literal one counts."""
    model = load(ROOT / "models" / "shakespeare-nano", "cpu")

    def wrong_option() -> None:
        model.session().generate(temperature=-1)

    def no_bundle() -> None:
        load(tmp_path)

    def closed() -> None:
        session = model.session()
        session.close()
        session.feed("a")

    for call, line in (
        (wrong_option, "temperature is …; it must be 0 (greedy) or above, such as 0.8"),
        (no_bundle, "… is not a bundle: it has no …; give the folder that `rillet export` wrote"),
        (closed, "the session …"),
    ):
        with pytest.raises(RilletError) as caught:
            call()
        fitting = [
            line
            for line in WRITTEN
            if re.fullmatch(".+".join(map(re.escape, line.split("…"))), str(caught.value))
        ]
        assert max(fitting, key=len) == line

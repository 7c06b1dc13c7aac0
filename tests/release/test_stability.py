"""The table of formats in docs/stability.md matches the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rillet.runtime import start_state
from rillet.runtime import state_table as contract
from rillet.runtime.engines.tensorrt import records as engine_records
from rillet.runtime.streams import saved_state
from rillet.train.checkpoint import CHECKPOINT_FORMAT
from rillet.train.data import token_file
from rillet.train.loop.resume import STATE_FORMAT

PAGE = (Path(__file__).parents[2] / "docs" / "stability.md").read_text()
FORMATS: dict[str, str | None] = {
    contract.FORMAT: contract.FORMAT_VERSION,
    start_state.START_STATE_FORMAT.name: start_state.START_STATE_FORMAT.version,
    saved_state.STATE_FORMAT.name: saved_state.STATE_FORMAT.version,
    CHECKPOINT_FORMAT.name: CHECKPOINT_FORMAT.version,
    STATE_FORMAT.name: STATE_FORMAT.version,
    token_file._FORMAT: token_file._VERSION,
    engine_records._FORMAT: engine_records._VERSION,
}


@pytest.mark.parametrize("name", FORMATS)
def test_the_page_names_each_format_and_its_version(name: str) -> None:
    row = re.search(rf"\| `{name}` \| ([\d.]+) \|", PAGE)
    assert row is not None, f"docs/stability.md does not name {name}"
    assert row.group(1) == FORMATS[name]


def test_the_page_names_no_other_format() -> None:
    assert set(re.findall(r"\| `(rillet-\w+)` \|", PAGE)) == set(FORMATS)

"""The documentation site, built as `make docs` builds it: a warning is an error."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install 'rillet[docs]'")
pytest.importorskip("material", reason="mkdocs-material is not installed")
pytest.importorskip("mkdocstrings", reason="mkdocstrings is not installed")

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    result = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


def test_each_page_is_built_and_reached(site: Path) -> None:
    front = (site / "index.html").read_text()
    for page in (ROOT / "docs").rglob("*.md"):
        built = page.relative_to(ROOT / "docs").with_suffix(".html").as_posix()
        assert (site / built).exists()
        assert built == "index.html" or f'href="{built}"' in front, f"no link leads to {built}"


@pytest.mark.parametrize("package", ["rillet.runtime", "rillet.train", "rillet.export"])
def test_each_public_name_is_in_the_reference(site: Path, package: str) -> None:
    there = re.findall(r'<h\d id="([\w.]+)"', (site / "api.html").read_text())
    names = {name.rpartition(".")[2] for name in there if name.startswith(f"{package}.")}
    public = set(importlib.import_module(package).__all__) - {"__version__"}
    assert public <= names


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    fetched = re.compile(r"<(?:script|img|iframe|link)\b[^>]*(?:src|href)=[\"']?(https?:)?//[^>]*>")
    for page in site.rglob("*.html"):
        tags = [tag.group() for tag in fetched.finditer(page.read_text())]
        assert not tags, f"{page.name} fetches {tags[0]}"


def test_docstrings_leave_no_markup_behind(site: Path) -> None:
    page = (site / "api.html").read_text()
    assert not re.search(r":(class|func|meth|mod|data):|::</p>", page)

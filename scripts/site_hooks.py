"""What `mkdocs build` does beside reading mkdocs.yml."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PACKAGES = ("runtime", "train", "export")


def on_startup(**_: Any) -> None:
    """Show the packages under their real names to the reader of docstrings."""
    names = ROOT / "build" / "reference" / "rillet"
    names.mkdir(parents=True, exist_ok=True)
    for package in PACKAGES:
        link = names / package
        if not link.is_symlink():
            link.symlink_to(Path("..", "..", "..", package), target_is_directory=True)


def on_config(config: Any) -> Any:
    """Put every page into the navigation."""
    pages = {file.relative_to(config.docs_dir).as_posix()
             for file in Path(config.docs_dir).rglob("*.md")}  # fmt: skip
    if left := sorted(pages - set(_named(config.nav))):
        config.nav.append({"More": left})
    return config


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Name a file outside docs/ instead of linking to it: the site does not have it."""
    return re.sub(r"\[([^\]]+)\]\(\.\./([^)]+)\)", r"\1 (`\2` in the repository)", markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Show what docstrings write in reStructuredText as the Markdown around it."""
    html = re.sub(r":(?:attr|class|data|exc|func|meth|mod):<code>~?", "<code>", html)
    return html.replace("::</p>", ":</p>")


def _named(entry: Any) -> list[str]:
    """The pages that a navigation names."""
    if isinstance(entry, str):
        return [entry]
    return [page for part in (entry.values() if isinstance(entry, dict) else entry)
            for page in _named(part)]  # fmt: skip

"""Hooks of `mkdocs build`, in addition to mkdocs.yml."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PACKAGES = ("runtime", "train", "export", "integrations")


def on_startup(**_: Any) -> None:
    """Link the packages under their real names, where mkdocstrings looks for them."""
    names = ROOT / "build" / "reference" / "rillet"
    names.mkdir(parents=True, exist_ok=True)
    for package in PACKAGES:
        link = names / package
        if not link.is_symlink():
            link.symlink_to(Path("..", "..", "..", package), target_is_directory=True)


def on_config(config: Any) -> Any:
    """Add pages that the navigation lacks to it."""
    docs = Path(config.docs_dir)
    pages = {file.relative_to(docs).as_posix() for file in docs.rglob("*.md")}
    if missing := sorted(pages - set(_nav_pages(config.nav))):
        config.nav.append({"More": missing})
    return config


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace links to files outside docs/, which the site lacks, with their paths."""
    return re.sub(r"\[([^\]]+)\]\(\.\./([^)]+)\)", r"\1 (`\2` in the repository)", markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Render the reStructuredText roles of docstrings as code."""
    html = re.sub(r":(?:attr|class|data|exc|func|meth|mod):<code>~?", "<code>", html)
    return html.replace("::</p>", ":</p>")


def _nav_pages(entry: Any) -> list[str]:
    """The pages of a navigation entry."""
    if isinstance(entry, str):
        return [entry]
    parts = entry.values() if isinstance(entry, dict) else entry
    return [page for part in parts for page in _nav_pages(part)]

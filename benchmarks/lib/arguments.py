"""What scripts take that compare bundles on text that no model has seen."""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = ["text_parser"]


def text_parser(doc: str) -> argparse.ArgumentParser:
    """A parser of bundles, their training text, a held-out text and a file for the figures."""
    parser = argparse.ArgumentParser(description=doc.split("\n")[0])
    parser.add_argument("bundles", nargs="+")
    parser.add_argument("--corpus", type=Path, required=True, help="the text of the training")
    parser.add_argument("--text", type=Path, required=True, help="text that no model has seen")
    parser.add_argument("--json", type=Path)
    return parser

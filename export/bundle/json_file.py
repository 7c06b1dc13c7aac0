"""The JSON files of a bundle: written in one format, read without trust."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...runtime.files import write_atomic

__all__ = ["dictionary", "words", "write_json"]


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON object atomically, indented and with a final line break."""
    write_atomic(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def dictionary(value: object) -> dict[str, Any]:
    """An object that comes from a file; empty if it is none."""
    return value if isinstance(value, dict) else {}


def words(value: object) -> list[str]:
    """The texts in a list that comes from a file; empty if it is none."""
    return [word for word in value if isinstance(word, str)] if isinstance(value, list) else []

"""Write the JSON files of a bundle, all in one format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...runtime.files import write_atomic

__all__ = ["write_json"]


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON object atomically, indented and with a final line break."""
    write_atomic(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())

"""A results file that grows by one finished row at a time."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

from rillet.runtime.files import make_folder, write_atomic

from .results import describe_machine

__all__ = ["ResumableResults"]


class ResumableResults:
    """Figures in sections of named rows, written at once and read back by the next command.

    Each row notes the command and the machine that measured it.

    Args:
        path: The file.
        about: What all rows have in common, as plain JSON values.

    Raises:
        SystemExit: The file's rows have something else in common.
    """

    def __init__(self, path: Path, about: dict[str, Any]) -> None:
        self.path, self.about = path, about
        stored = self._read()["about"]
        differing = sorted(key for key in about if stored.get(key) != about[key])
        if differing:
            raise SystemExit(
                f"{path} was measured with another {', '.join(differing)}; "
                "remove it or give another --results"
            )

    def get(self, section: str, name: str) -> Any:
        """A row, or ``None``."""
        return self._read().get(section, {}).get(name)

    def put(self, section: str, name: str, row: dict[str, Any]) -> None:
        """Add or replace a row, and write the file."""
        measured = {"command": shlex.join(["python", *sys.argv]), "machine": describe_machine()}
        content = self._read()  # another command may have added rows
        content.setdefault(section, {})[name] = {**row, "measured": measured}
        make_folder(self.path.parent)
        write_atomic(self.path, (json.dumps(content, indent=1) + "\n").encode())

    def _read(self) -> dict[str, Any]:
        if not self.path.is_file():
            return {"about": self.about}
        content: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8"))
        return content

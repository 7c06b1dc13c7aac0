"""Safetensors files with a JSON header: tensors, a format name and a format version."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open

from .errors import BundleError, RilletError, brief

__all__ = ["HEADER", "TensorFormat"]

HEADER = "rillet"
"""The only metadata entry: safetensors writes several entries in an arbitrary order."""


@dataclass(frozen=True)
class TensorFormat:
    """A kind of safetensors file that rillet writes.

    Attributes:
        name: Format name in the header, such as ``rillet-checkpoint``.
        version: Format version written, ``major.minor``; every minor version of this major
            version can be read. ``None`` for a format without versions.
        noun: What error messages call such a file, such as ``checkpoint``.
        advice: What to do about a damaged or foreign file, as a clause.
        error: The class of errors that reading raises.
    """

    name: str
    version: str | None
    noun: str
    advice: str
    error: type[RilletError] = BundleError

    def metadata(self, header: dict[str, Any]) -> dict[str, str]:
        """The safetensors metadata for a file with this header.

        Args:
            header: Plain JSON values; format name and version are added in front.
        """
        versioned = {} if self.version is None else {"format_version": self.version}
        full = {"format": self.name, **versioned, **header}
        return {HEADER: json.dumps(full, ensure_ascii=False)}

    def read(
        self, path: Path, framework: Literal["numpy", "pt"]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read a file of this format.

        Args:
            path: The file.
            framework: Type of the tensors: NumPy arrays, or PyTorch tensors on the CPU.

        Returns:
            The header, and the tensors by name.

        Raises:
            RilletError: Of the class :attr:`error`: the file is missing, damaged, of another
                format, or of an incompatible version.
        """
        if not path.exists():
            raise self.error(f"{path} does not exist; {self.advice}")
        if not path.is_file():
            what = "folder" if path.is_dir() else "device or a pipe"
            raise self.error(f"{path} is a {what} and not a {self.noun}; {self.advice}")
        try:
            with safe_open(path, framework=framework) as file:
                header: Any = json.loads((file.metadata() or {})[HEADER])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, KeyError, ValueError, TypeError, RecursionError) as error:
            raise self.error(
                f"{path} is damaged or is not a {self.noun} ({brief(error)}); {self.advice}"
            ) from error
        if not isinstance(header, dict) or header.get("format") != self.name:
            raise self.error(f"{path} is not a {self.noun}; {self.advice}")
        version = header.get("format_version")
        if self.version is not None and _major(version) != _major(self.version):
            raise self.error(
                f"{path} is a {self.noun} of format version {version}, but this rillet reads "
                f"{self.version}; install a newer rillet"
            )
        return header, tensors


def _major(version: object) -> str:
    return str(version).partition(".")[0]

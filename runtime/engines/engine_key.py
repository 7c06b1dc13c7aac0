"""What a built engine was built from and for, and whether it can run here."""

from __future__ import annotations

import dataclasses
import json
import platform
from dataclasses import dataclass
from typing import Any

from ..errors import EngineError
from ..files import sha256_bytes

__all__ = ["EngineKey", "this_platform"]


@dataclass(frozen=True)
class EngineKey:
    """What an engine was built from and for.

    Attributes:
        graph: Name of the graph, such as ``decode``.
        graph_sha256: Hash of its file.
        precision: Precision of the bundle; it lives in the graph.
        library: The library that built it, with its version, such as ``tensorrt 10.3.0``.
        gpu: Name of the GPU; ``any`` if the library compiles for it on loading.
        capability: Compute capability of the GPU.
        driver: CUDA version of the driver.
        platform: Operating system and processor.
        batches: The numbers of rows that it steps.
        lengths: Fewest, best and most tokens of a call.
        version_compatible: Whether later versions of the library can run it too.
        hardware_compatible: Whether every GPU from compute capability 8.0 on can run it.
    """

    graph: str
    graph_sha256: str
    precision: str
    library: str
    gpu: str
    capability: str
    driver: str
    platform: str
    batches: tuple[int, ...] = (1,)
    lengths: tuple[int, ...] = (1, 1, 1)
    version_compatible: bool = False
    hardware_compatible: bool = False

    @property
    def digest(self) -> str:
        """A short name for the whole key; equal keys have equal digests."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return sha256_bytes(text.encode())[:16]

    def to_dict(self) -> dict[str, Any]:
        """The key as a JSON value."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_dict(cls, value: Any) -> EngineKey:
        """Read what :meth:`to_dict` returned.

        Raises:
            EngineError: A field is missing, unknown or of the wrong type.
        """
        if not isinstance(value, dict) or set(value) != set(_FIELDS):
            raise EngineError(
                "the record of the engine does not have the fields that rillet writes"
            )
        fields: dict[str, Any] = {}
        for name, entry in value.items():
            kind = _FIELDS[name]
            if kind is tuple:
                valid = isinstance(entry, list) and all(
                    type(size) is int and size > 0 for size in entry
                )
                fields[name] = tuple(entry) if valid else None
            else:
                valid, fields[name] = type(entry) is kind, entry
            if not valid:
                raise EngineError(f"the record of the engine has {name} = {entry!r}")
        return cls(**fields)

    def misfit(self, here: EngineKey) -> str | None:
        """Say why an engine with this key cannot be used here; ``None`` if it can.

        Args:
            here: The key that this machine would give an engine of the graph as it is now.
        """
        reasons = []
        if self.graph_sha256 != here.graph_sha256:
            reasons.append("another graph (the bundle has been exported again since)")
        if self.precision != here.precision:
            reasons.append(f"precision {self.precision}, and the bundle is {here.precision}")
        if self.library != here.library and not self._runs_on(here.library):
            reasons.append(f"{self.library}, and this machine has {here.library}")
        if not self._fits_gpu(here):
            reasons.append(
                f"{self.gpu} (compute capability {self.capability}), and this machine has "
                f"{here.gpu} ({here.capability})"
            )
        if self.platform != here.platform:
            reasons.append(f"{self.platform}, and this machine is {here.platform}")
        return "; ".join(reasons) or None

    def _runs_on(self, library: str) -> bool:
        """Whether a version-compatible engine runs on a later version of the same major."""
        (name, version), (other, newer) = self.library.split(" "), library.split(" ")
        built, installed = _numbers(version), _numbers(newer)
        return (
            self.version_compatible
            and name == other
            and built[:1] == installed[:1]
            and built <= installed
        )

    def _fits_gpu(self, here: EngineKey) -> bool:
        if self.gpu == "any" or (self.gpu, self.capability) == (here.gpu, here.capability):
            return True
        ampere = (8, 0)
        return (
            self.hardware_compatible
            and _numbers(self.capability) >= ampere
            and _numbers(here.capability) >= ampere
        )


_FIELDS = {
    field.name: str if field.default is dataclasses.MISSING else type(field.default)
    for field in dataclasses.fields(EngineKey)
}
"""The type of each field; those without a default are texts."""


def this_platform() -> str:
    """Operating system and processor, such as ``linux-aarch64``."""
    return f"{platform.system().lower()}-{platform.machine().lower()}"


def _numbers(version: str) -> tuple[int, ...]:
    """A dotted version as numbers; a part that is not a number counts as 0."""
    return tuple(int(part) if part.isdigit() else 0 for part in version.split("."))

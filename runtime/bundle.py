"""The bundle: a folder with everything needed to run a model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from .errors import BundleError, EngineError, UsageError
from .files import as_path, sha256_bytes, sha256_file
from .hub import fetch_bundle, in_hub_cache, on_hub
from .start_state import START_STATE_FILE, read_start_state
from .state_table import FORMAT, FORMAT_VERSION, StateTensor, parse_state_table
from .tensor_file import TensorFormat
from .text_sample import TEXT_SAMPLE_FILE, TextSample

__all__ = ["BUNDLE_FILE", "WEIGHTS_FILE", "WEIGHTS_FORMAT", "Bundle", "checksum"]

BUNDLE_FILE = "bundle.json"

WEIGHTS_FILE = "weights.safetensors"
"""The weights as plain tensors, for engines that run no graph; absent from older bundles."""

WEIGHTS_FORMAT = TensorFormat(
    "rillet-weights", "1.0", "rillet weights file", "export the model again"
)

_MAX_JSON_BYTES = 16 * 1024 * 1024


def checksum(manifest: dict[str, Any]) -> str:
    """SHA-256 of a manifest, excluding its own ``checksum`` entry."""
    content = {key: value for key, value in manifest.items() if key != "checksum"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return sha256_bytes(text.encode())


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk whose files match their hashes.

    Attributes:
        path: The folder.
        manifest: The contents of ``bundle.json``.
        state: The state table, in order.
    """

    path: Path
    manifest: dict[str, Any]
    state: list[StateTensor]

    @classmethod
    def open(cls, path: str | Path, revision: str | None = None) -> Bundle:
        """Open a bundle and verify every file that it lists.

        Args:
            path: The folder, or ``hf:OWNER/NAME`` for one on the Hugging Face Hub.
            revision: Which version of a bundle on the hub: a branch, a tag or a commit.

        Raises:
            BundleError: There is no bundle, its format is newer, or a file is missing, damaged or
                outside the folder.
            UsageError: A folder is given with a revision, or what can be no path.
        """
        if on_hub(path):
            path = fetch_bundle(path, revision)
        elif revision is not None:
            raise UsageError(
                f"revision is {revision!r}, but {path} is a folder; leave it out, or give "
                "hf:OWNER/NAME"
            )
        # Resolved, so that graphs that load later are found whatever the working folder is then.
        path = as_path(path).resolve()
        manifest = _read_manifest(path)
        bundle = cls(path, manifest, parse_state_table(manifest.get("state")))
        for name, expected in bundle.hashes().items():
            file = bundle.file(name)
            if sha256_file(file) != expected:
                raise BundleError(
                    f"{file} is damaged or was changed: its SHA-256 is not the one in "
                    f"{BUNDLE_FILE}; copy the bundle again, or export it again"
                )
        if bundle.has_graphs:
            for required in ("decode", "prefill"):
                bundle.graph(required)
        for name in manifest["graphs"]:
            _check_self_contained(bundle.graph(name))
        return bundle

    def hashes(self) -> dict[str, str]:
        """SHA-256 of each file in the bundle, keyed by file name."""
        graphs, files = self.manifest.get("graphs"), self.manifest.get("files")
        hashes: dict[str, str] = {}
        if isinstance(graphs, dict) and isinstance(files, dict):
            for entry in graphs.values():
                if isinstance(entry, dict) and isinstance(entry.get("file"), str):
                    hashes[entry["file"]] = str(entry.get("sha256"))
            hashes.update({name: str(value) for name, value in files.items()})
        runs = self.has_graphs or WEIGHTS_FILE in hashes
        if not runs or "tokenizer.json" not in hashes:
            raise BundleError(f"{self.path / BUNDLE_FILE} lists no graphs or no tokenizer")
        return hashes

    def file(self, name: str) -> Path:
        """The path of a file, given its name in ``bundle.json``.

        Raises:
            BundleError: The name points outside the folder, or the file is a link or does not
                exist.
        """
        if name in ("", ".", "..") or any(mark in name for mark in "/\\:\0"):
            raise BundleError(
                f"{self.path / BUNDLE_FILE} names the file {name!r}, which is not a regular "
                "file in the folder; the bundle was not written by rillet"
            )
        path = self.path / name
        _check_in_place(path)
        if not path.is_file():
            raise BundleError(f"{path} is missing; copy the bundle again, or export it again")
        return path

    @property
    def has_graphs(self) -> bool:
        """Whether the bundle has graphs, or weights for the native engine alone."""
        return bool(self.manifest.get("graphs"))

    def graph(self, name: str) -> Path:
        """The path of a graph, such as ``decode`` or ``prefill``.

        Raises:
            BundleError: The manifest lists no such graph, or its file is missing.
            EngineError: The bundle is for the native engine alone.
        """
        if not self.has_graphs:
            raise EngineError(
                f"{self.path} has no graphs, so only the native engine runs it; use the provider "
                "native, or export the model without --native-only"
            )
        entry = self.manifest["graphs"].get(name)
        if not isinstance(entry, dict) or not isinstance(entry.get("file"), str):
            raise BundleError(f"{self.path / BUNDLE_FILE} lists no {name} graph")
        return self.file(entry["file"])

    def checked_graph(self, name: str) -> Path:
        """The path of a graph that is about to be loaded, if it is still the one that was opened.

        Raises:
            BundleError: The file is missing, or was replaced since.
        """
        return self.checked_file(self.graph(name).name)

    def checked_file(self, name: str) -> Path:
        """The path of a file, if it is still the one that was opened; see :meth:`checked_graph`."""
        path = self.file(name)
        if sha256_file(path) != self.hashes()[name]:
            raise BundleError(
                f"{path} was replaced since the bundle was loaded; load the bundle again"
            )
        return path

    @property
    def vocab_size(self) -> int:
        """Number of tokens in the vocabulary."""
        model = self.manifest.get("model")
        size = model.get("vocab_size") if isinstance(model, dict) else None
        if type(size) is not int or size < 1:
            raise BundleError(f"{self.path / BUNDLE_FILE} has no vocabulary size")
        return size

    @property
    def last_logits(self) -> bool:
        """Whether the prefill graph returns logits for the last token of a call only."""
        return bool(self.manifest["graphs"].get("prefill", {}).get("logits") == "last")

    @property
    def independent_rows(self) -> bool:
        """Whether the graphs compute each row of a batch from nothing but that row.

        Dynamic int8 does not: it takes one scale for all rows of a call.
        """
        quantization = self.manifest.get("quantization")
        method = quantization.get("method") if isinstance(quantization, dict) else None
        return method != "dynamic"

    def text_sample(self) -> TextSample | None:
        """The sample of the run's text that the bundle carries; ``None`` if it carries none.

        Raises:
            BundleError: The sample is malformed.
        """
        if TEXT_SAMPLE_FILE not in self.hashes():
            return None
        file = self.file(TEXT_SAMPLE_FILE)
        try:
            return TextSample.from_dict(read_json_object(file), self.vocab_size)
        except ValueError as error:
            raise BundleError(f"{file} is damaged: {error}; export the model again") from error

    def start_state(self) -> dict[str, npt.NDArray[Any]] | None:
        """What streams begin with: every state tensor, for one row; ``None`` if that is zeros.

        Raises:
            BundleError: The file that holds it is damaged, or is not of this bundle.
        """
        if START_STATE_FILE not in self.hashes():
            return None
        return read_start_state(self.file(START_STATE_FILE), self.state, self.vocab_size)

    def generation_defaults(self) -> dict[str, Any]:
        """The default sampling options, under Hugging Face's names."""
        return read_json_object(self.file("generation_config.json"))


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file.

    Raises:
        BundleError: The file is too large, or does not contain a JSON object.
    """
    try:
        if (size := path.stat().st_size) > _MAX_JSON_BYTES:
            raise BundleError(
                f"{path} has {size:,} bytes, and rillet writes at most {_MAX_JSON_BYTES:,}; it was "
                "not written by rillet"
            )
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path} cannot be read as JSON ({error}); copy it again") from error
    if not isinstance(value, dict):
        raise BundleError(f"{path} is not a JSON object; it was not written by rillet")
    return value


def _check_in_place(path: Path) -> None:
    """Refuse a link, which may lead to any file on this machine; the hub's cache is made of them.

    Raises:
        BundleError: It is one.
    """
    if path.is_symlink() and not in_hub_cache(path):
        raise BundleError(
            f"{path} is a link, and a bundle holds its files itself; copy it with what its links "
            "point to: cp -rL"
        )


def _check_self_contained(path: Path) -> None:
    """Refuse a graph that stores weights in external files: they could be any file on this machine.

    ONNX Runtime before 1.24 reads whatever path a graph names. The key of that path is the plain
    word below, however the rest is encoded; no graph of rillet's contains it.
    """
    if b"location" in path.read_bytes():
        raise BundleError(
            f"{path} stores weights in external files, which rillet never does; it was not written "
            "by rillet"
        )


def _read_manifest(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        raise BundleError(f"{path} is not a folder; give the folder that `rillet export` wrote")
    file = path / BUNDLE_FILE
    _check_in_place(file)
    if not file.is_file():
        raise BundleError(
            f"{path} is not a bundle: it has no {BUNDLE_FILE}; give the folder that "
            "`rillet export` wrote"
        )
    manifest = read_json_object(file)
    version = manifest.get("format_version")
    if manifest.get("format") != FORMAT or not isinstance(version, str):
        raise BundleError(f"{file} is not the manifest of a rillet bundle")
    if version.split(".")[0] != FORMAT_VERSION.split(".")[0]:
        raise BundleError(
            f"{path} has format version {version}, and this rillet reads {FORMAT_VERSION}; "
            "install a newer rillet, or export the model again with this one"
        )
    if manifest.get("checksum") != checksum(manifest):
        raise BundleError(
            f"{file} is damaged or was changed: its checksum does not match its content; "
            "copy the bundle again, or export it again"
        )
    return manifest

"""A stream in a file: saved atomically, restored whole or not at all."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors

from ..errors import RilletError, StateError
from ..files import write_atomic
from .generation import Generation

if TYPE_CHECKING:
    from ..model import Model
    from .session import Session

__all__ = ["STATE_FORMAT", "STATE_VERSION", "load_session", "save_session"]

STATE_FORMAT = "rillet-session"
STATE_VERSION = "1.0"

_HEADER = "rillet"
"""The one entry of the file's metadata: with several, safetensors writes any order."""

_LARGEST_POSITION = 1 << 62


def save_session(session: Session, path: Path) -> None:
    """Write a stream to a safetensors file.

    Args:
        session: The stream.
        path: The file; its folder must exist.
    """
    tensors = {f"state.{name}": value for name, value in session.state.items()}
    tensors["seen"] = session._seen.astype(np.uint8)
    if session._logits is not None:
        tensors["logits"] = session._logits.copy()
    generation = session._generation
    header = {
        "format": STATE_FORMAT,
        "format_version": STATE_VERSION,
        **_identity(session.model),
        "learn": session.learn_mode,
        "memory": session.memory,
        "position": session._position,
        "pending": session._decoder.pending.hex(),
        "recent": list(session._recent),
        "generation": None if generation is None else generation.snapshot(),
    }
    header["checksum"] = _checksum(header, tensors)
    # JSON with its keys in order, and infinity by Python's name for it: read back by Python.
    text = json.dumps(header, sort_keys=True)
    write_atomic(path, to_safetensors(tensors, {_HEADER: text}))


def load_session(model: Model, path: Path) -> Session:
    """Open a stream that :func:`save_session` wrote.

    Args:
        model: The model that it is a stream of.
        path: The file.

    Returns:
        A new session, where the saved one was.

    Raises:
        StateError: The file is missing, damaged, of a newer version, or of another model.
    """
    header, tensors = _read(path)
    version = header.get("format_version")
    if header.get("format") != STATE_FORMAT or not isinstance(version, str):
        raise StateError(f"{path} is no stream that rillet saved; give a file of session.save()")
    if version.split(".")[0] != STATE_VERSION.split(".")[0]:
        raise StateError(
            f"{path} has format version {version}, and this rillet reads {STATE_VERSION}; install "
            "a newer rillet"
        )
    if header.get("checksum") != _checksum(header, tensors):
        raise StateError(
            f"{path} is damaged or was changed: its checksum does not match its content; go back "
            "to another copy"
        )
    for name, ours in _identity(model).items():
        if header.get(name) != ours:
            raise StateError(
                f"{path} was saved from another model: its {name} is {header.get(name)!r}, and "
                f"that of {model.bundle.path} is {ours!r}; restore it with the model that it was "
                "saved from"
            )
    try:
        return _rebuild(model, header, tensors)
    except (RilletError, KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise StateError(
            f"{path} does not hold a whole stream of this model ({error}); it was not written by "
            "session.save()"
        ) from error


def _rebuild(model: Model, header: dict[str, Any], tensors: dict[str, npt.NDArray[Any]]) -> Session:
    state = {row.name: tensors.pop(f"state.{row.name}") for row in model.bundle.state}
    for name, value in state.items():
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise ValueError(f"{name} holds numbers that are not finite")
    tokens = state.get("memory_tokens")
    if tokens is not None and not ((tokens >= 0) & (tokens < model.vocab_size)).all():
        raise ValueError("the memory holds tokens that do not exist")
    place = state.get("position")
    if place is not None and not ((place >= 0) & (place < _LARGEST_POSITION)).all():
        raise ValueError("its position is out of range")
    session = model.session(header["learn"], _whole(header["memory"], bool))
    session._state.write(state)
    if (logits := tensors.pop("logits", None)) is not None:
        if logits.shape != (model.vocab_size,) or not np.isfinite(logits).all():
            raise ValueError("its logits are not those of a step")
        session._logits = logits
    seen = tensors.pop("seen")
    if seen.shape != session._seen.shape or tensors:
        raise ValueError("it has other tensors")
    session._seen[...] = seen.astype(np.bool_)
    session._position = _whole(header["position"], int)
    session._decoder.pending = bytes.fromhex(header["pending"])[:4]
    for token in header["recent"]:
        if not 0 <= _whole(token, int) < model.vocab_size:
            raise ValueError("it has read tokens that do not exist")
        session._recent.append(token)
    if header["generation"] is not None:
        session._generation = Generation.from_snapshot(
            header["generation"], model.tokenizer, session._seen
        )
    return session


def _whole(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise ValueError(f"{value!r} is not of type {kind.__name__}")
    return value


def _identity(model: Model) -> dict[str, Any]:
    manifest = model.bundle.manifest
    return {
        "weights_sha256": manifest.get("weights_sha256"),
        "tokenizer_sha256": manifest.get("tokenizer_sha256"),
        "precision": manifest.get("precision"),
    }


def _read(path: Path) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    if not path.is_file():
        raise StateError(f"{path} does not exist; give a file that session.save() wrote")
    try:
        with safe_open(path, framework="numpy") as file:
            header: Any = json.loads((file.metadata() or {})[_HEADER])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise StateError(
            f"{path} is damaged, or no stream that rillet saved ({error}); go back to another copy"
        ) from error
    if not isinstance(header, dict):
        raise StateError(f"{path} is no stream that rillet saved; give a file of session.save()")
    return header, tensors


def _checksum(header: dict[str, Any], tensors: dict[str, npt.NDArray[Any]]) -> str:
    content = {key: value for key, value in header.items() if key != "checksum"}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name} {value.dtype} {value.shape}".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()

"""A stream in a file: saved atomically, restored whole or not at all."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save as to_safetensors

from ..context_slots import check_lookups, check_slots
from ..errors import OtherModelError, RilletError, StateError, UsageError
from ..files import write_atomic
from ..loaded import LoadedModel
from ..tensor_file import HEADER, TensorFormat
from .generation import Generation
from .snapshot import Snapshot
from .stream import LearnMode

__all__ = ["STATE_FORMAT", "SavedStream", "checksum", "load_stream", "save_stream"]

STATE_FORMAT = TensorFormat(
    "rillet-session", "1.1", "saved stream", "give a file that session.save() wrote", StateError
)

_LARGEST_POSITION = 1 << 62

T = TypeVar("T")


class SavedStream(NamedTuple):
    """What a file holds of a stream.

    Attributes:
        learn: What its memory stores.
        memory: Whether it has one.
        taught: Whether it began with what the bundle taught.
        snapshot: Where it stood.
    """

    learn: LearnMode
    memory: bool
    taught: bool
    snapshot: Snapshot


def save_stream(model: LoadedModel, stream: SavedStream, path: Path) -> None:
    """Write a stream to a safetensors file.

    Args:
        model: Its model.
        stream: The stream.
        path: The file; its folder must exist.
    """
    snapshot = stream.snapshot
    tensors = {f"state.{name}": value for name, value in snapshot.state.read().items()}
    if snapshot.repeatable:
        tensors |= {f"before.{name}": v for name, v in snapshot.state.read_before().items()}
    tensors["seen"] = snapshot.seen.astype(np.uint8)
    if snapshot.logits is not None:
        tensors["logits"] = snapshot.logits
    header = {
        "format": STATE_FORMAT.name,
        "format_version": STATE_FORMAT.version,
        **model.identity,
        "learn": stream.learn,
        "memory": stream.memory,
        "taught": stream.taught,
        "position": snapshot.position,
        "pending": snapshot.pending.hex(),
        "recent": list(snapshot.recent),
        "generation": _data(snapshot.generation),
    }
    header["checksum"] = checksum(header, tensors)
    # Keys in order; infinity by Python's name for it, since Python reads it back.
    text = json.dumps(header, sort_keys=True)
    write_atomic(path, to_safetensors(tensors, {HEADER: text}))


def _data(generation: dict[str, Any] | None) -> dict[str, Any] | None:
    """A generation as a file can hold it; none if it has ended and a file cannot.

    Raises:
        UsageError: It goes on with a function.
    """
    if generation is None or generation["params"].get("logits_processor") is None:
        return generation
    if generation["finish_reason"] is None:
        raise UsageError(
            "the text is under way with a logits_processor, a function that no file can hold; "
            "save the stream when the text has ended"
        )
    return None


def load_stream(model: LoadedModel, path: Path) -> SavedStream:
    """Read a stream that :func:`save_stream` wrote.

    Args:
        model: Its model.
        path: The file.

    Returns:
        The stream.

    Raises:
        StateError: The file is missing, damaged, of a newer version, or of another model.
    """
    header, tensors = STATE_FORMAT.read(path, "numpy")
    if header.get("checksum") != checksum(header, tensors):
        raise StateError(
            f"{path} is damaged or was changed: its checksum does not match its content; go back "
            "to another copy"
        )
    for name, ours in model.identity.items():
        if header.get(name) != ours:
            raise OtherModelError(
                f"{path} was saved from another model: its {name} is {header.get(name)!r}, and "
                f"that of {model.bundle.path} is {ours!r}; restore it with the model that it was "
                "saved from"
            )
    _check_size(model, tensors, path)
    try:
        return _parse(model, header, tensors)
    except (RilletError, KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise StateError(
            f"{path} does not hold a whole stream of this model ({error}); it was not written by "
            "session.save()"
        ) from error


def checksum(header: dict[str, Any], tensors: dict[str, npt.NDArray[Any]]) -> str:
    """SHA-256 of a header, without its own ``checksum``, and of the tensors."""
    content = {key: value for key, value in header.items() if key != "checksum"}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name} {value.dtype} {value.shape}".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def _parse(
    model: LoadedModel, header: dict[str, Any], tensors: dict[str, npt.NDArray[Any]]
) -> SavedStream:
    values = {row.name: tensors.pop(f"state.{row.name}") for row in model.bundle.state}
    slots = values["memory_slots"].shape[1] if "memory_slots" in values else 0
    _check_values(values, model.vocab_size)
    check_lookups(values, model.vocab_size, slots)
    state = model.engine.zero_state()
    state.write(values)
    # Version 1.0 had none.
    before = {
        name: value for name in values if (value := tensors.pop(f"before.{name}", None)) is not None
    }
    if before:
        _check_values(before, model.vocab_size)
        check_lookups(before, model.vocab_size, slots)
        state.write_before(before)
    logits, seen = tensors.pop("logits", None), tensors.pop("seen")
    if logits is not None and (
        logits.shape != (model.vocab_size,) or not np.isfinite(logits).all()
    ):
        raise ValueError("its logits are not those of a step")
    if seen.shape != (model.vocab_size,):
        raise ValueError("the tokens that it has seen are not those of this model")
    seen = seen.astype(np.bool_)
    recent = tuple(_typed(token, int) for token in header["recent"])
    written = _typed(header["position"], int)
    if not 0 <= written < _LARGEST_POSITION:
        raise ValueError("its position is out of range")
    if not all(0 <= token < model.vocab_size for token in recent):
        raise ValueError("it has read tokens that do not exist")
    learn = header["learn"]
    if learn not in get_args(LearnMode):
        raise ValueError(f"learn is {learn!r}")
    generation = header["generation"]
    if generation is not None:
        Generation.from_snapshot(generation, model.tokenizer, seen.copy())  # raises if unsound
    snapshot = Snapshot(
        model,
        state,
        logits,
        written,
        bytes.fromhex(header["pending"])[:4],
        seen,
        recent,
        bool(before and recent),
        generation,
    )
    # Files of before bundles taught anything do not say.
    taught = _typed(header.get("taught", False), bool)
    return SavedStream(learn, _typed(header["memory"], bool), taught, snapshot)


def _check_size(model: LoadedModel, tensors: dict[str, npt.NDArray[Any]], path: Path) -> None:
    """Refuse a stream of the same weights with a memory of another size."""
    ours = next((row.shape[0] for row in model.bundle.state if row.name == "memory_slots"), None)
    theirs = tensors.get("state.memory_slots")
    if ours is not None and theirs is not None and theirs.shape != (1, ours):
        raise OtherModelError(
            f"{path} was saved from another bundle of this model: its memory has {theirs.size:,} "
            f"slots, and that of {model.bundle.path} {ours:,}; restore it with the bundle that it "
            "was saved from"
        )


def _check_values(values: dict[str, npt.NDArray[Any]], vocab_size: int) -> None:
    """Refuse state tensors that no step could have left.

    Raises:
        ValueError: There are such.
    """
    for name, value in values.items():
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise ValueError(f"{name} holds numbers that are not finite")
    tokens = values.get("memory_tokens")
    if tokens is not None and not ((tokens >= 0) & (tokens < vocab_size)).all():
        raise ValueError("the memory holds tokens that do not exist")
    check_slots(values, vocab_size)
    position = values.get("position")
    if position is not None and not ((position >= 0) & (position < _LARGEST_POSITION)).all():
        raise ValueError("its position is out of range")


def _typed(value: Any, kind: type[T]) -> T:
    if type(value) is not kind:
        raise ValueError(f"{value!r} is not of type {kind.__name__}")
    return value

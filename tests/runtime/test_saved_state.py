"""Saved streams: bit-identical in a new process, and refused if anything is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save

from rillet.runtime import Model, Session, StateError, UsageError, load
from rillet.runtime.streams import saved_state as module

OPTIONS: dict[str, Any] = {
    "seed": 7,
    "max_new_tokens": 300,
    "temperature": 1.1,
    "top_k": 30,
    "top_p": 0.95,
    "min_p": 0.001,
    "typical_p": 0.99,
    "repetition_penalty": 1.05,
    "frequency_penalty": 0.01,
    "presence_penalty": 0.1,
    "logit_bias": {"e": 0.5, 3: -float("inf")},
    "bad_words": ["xyz", "th"],
    "stop": ["\n\n\n\n", "statement of"],
}


def interrupted(model: Model, after: int, learn: str = "read", **options: Any) -> Session:
    """A stream in the middle of a generation."""
    session = model.session(learn)
    session.feed("The statement is a name. ")
    stream = session.tokens(**options)
    for _ in range(after):
        next(stream)
    return session


def parts(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    with safe_open(path, framework="numpy") as file:
        header = json.loads(file.metadata()["rillet"])
        return header, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def rewrite(path: Path, header: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
    """Write a changed file with a matching checksum, as someone who knows the format could."""
    header["checksum"] = module.checksum(header, tensors)
    path.write_bytes(save(tensors, {"rillet": json.dumps(header, sort_keys=True)}))


@pytest.mark.parametrize("learn", ["read", "all"])
def test_a_stream_continues_in_a_new_process(
    small_bundle: Path, learn: str, tmp_path: Path
) -> None:
    """Text, state and position equal those of an uninterrupted stream, bit for bit."""
    model = load(small_bundle)
    session = interrupted(model, 25, learn, **OPTIONS)
    session.save(tmp_path / "s")
    code = (
        "import sys, rillet.runtime\n"
        "session = rillet.runtime.load(sys.argv[1]).restore(sys.argv[2])\n"
        "sys.stdout.write(''.join(session.resume()))\n"
        "session.feed('Then ')\n"
        "sys.stdout.write(session.generate(seed=3, max_new_tokens=20))\n"
        "session.save(sys.argv[3])\n"
    )
    command = [sys.executable, "-c", code, str(small_bundle), str(tmp_path / "s")]
    environment = {**os.environ, "PYTHONUTF8": "1"}
    result = subprocess.run(
        [*command, str(tmp_path / "end")], capture_output=True, check=False, env=environment
    )
    assert result.returncode == 0, result.stderr
    text = "".join(session.resume())
    session.feed("Then ")
    text += session.generate(seed=3, max_new_tokens=20)
    assert result.stdout.decode() == text
    session.save(tmp_path / "same")
    assert (tmp_path / "end").read_bytes() == (tmp_path / "same").read_bytes()


@given(after=st.integers(0, 30), seed=st.integers(0, 1000))
def test_a_restored_stream_equals_the_original(
    small_model: Model, after: int, seed: int, tmp_path_factory: Any
) -> None:
    path = tmp_path_factory.mktemp("saved") / "s"
    session = interrupted(small_model, after, **{**OPTIONS, "seed": seed, "stop": ["zzz"]})
    session.save(path)
    restored = small_model.restore(path)
    assert "".join(restored.resume()) == "".join(session.resume())
    assert restored.position == session.position
    for name, value in session.state.items():
        np.testing.assert_array_equal(value, restored.state[name])


def test_choices_and_a_fresh_stream_are_saved(small_model: Model, tmp_path: Path) -> None:
    session = interrupted(small_model, 3, choices=["statement", "expression"], seed=1)
    session.save(tmp_path / "s")
    assert "".join(small_model.restore(tmp_path / "s").resume()) == "".join(session.resume())
    fresh = small_model.session("none", memory=False)
    fresh.save(tmp_path / "s")
    restored = small_model.restore(tmp_path / "s")
    assert (restored.logits, restored.position) == (None, 0)
    assert (restored.learn_mode, restored.memory) == ("none", False)


def test_equal_streams_give_equal_files(small_model: Model, tmp_path: Path) -> None:
    for name in "ab":
        interrupted(small_model, 9, **OPTIONS).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_failed_save_leaves_the_old_file(
    small_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s"
    session = interrupted(small_model, 3, **OPTIONS)
    session.save(path)
    before = path.read_bytes()
    session.generate(max_new_tokens=5)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        session.save(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["s"]


def test_another_model_is_refused(
    small_model: Model, variant_bundle: Callable[[str], Path], tmp_path: Path
) -> None:
    interrupted(small_model, 3, **OPTIONS).save(tmp_path / "s")
    with pytest.raises(StateError, match="was saved from another model: its weights_sha256"):
        load(variant_bundle("no memory")).restore(tmp_path / "s")


def test_a_newer_version_is_refused(small_model: Model, tmp_path: Path) -> None:
    path = tmp_path / "s"
    interrupted(small_model, 3, **OPTIONS).save(path)
    header, tensors = parts(path)
    rewrite(path, {**header, "format_version": "2.0"}, tensors)
    with pytest.raises(StateError, match=r"format version 2\.0, but this rillet reads 1\.1"):
        small_model.restore(path)
    rewrite(path, {**header, "format_version": "1.7"}, tensors)
    small_model.restore(path)


def test_a_file_that_is_not_a_saved_stream_is_refused(
    small_model: Model, small_bundle: Path, tmp_path: Path
) -> None:
    with pytest.raises(StateError, match="does not exist"):
        small_model.restore(tmp_path / "none")
    with pytest.raises(StateError, match="is a folder and not a saved stream"):
        small_model.restore(tmp_path)
    with pytest.raises(StateError, match="is not a saved stream"):
        small_model.restore(small_bundle / "bundle.json")
    (tmp_path / "other").write_bytes(save({"a": np.zeros(3)}))
    with pytest.raises(StateError, match="is not a saved stream"):
        small_model.restore(tmp_path / "other")


@given(data=st.data())
def test_any_damage_is_refused(
    small_model: Model, data: st.DataObject, tmp_path_factory: Any
) -> None:
    """A flipped bit, or a file cut short, at any position."""
    path = tmp_path_factory.mktemp("damaged") / "s"
    interrupted(small_model, 4, **OPTIONS).save(path)
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[at] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del content[at:]
    path.write_bytes(content)
    with pytest.raises(StateError):
        small_model.restore(path)


CHANGES: list[tuple[str, Any]] = [
    ("learn", "some"),
    ("memory", 1),
    ("position", -0.5),
    ("pending", "zz"),
    ("pending", None),
    ("recent", [10_000]),
    ("recent", 5),
    ("generation", 5),
    ("generation", {}),
    ("generation.params", {}),
    ("generation.params.temperature", -1),
    ("generation.params.warmth", 1),
    ("generation.params.logit_bias", [[1, 2, 3]]),
    ("generation.sampler.random.state", "x"),
    ("generation.sampler.random.state", str(1 << 200)),
    ("generation.sampler.random.state", "-1"),
    ("generation.sampler.processors", []),
    ("generation.held", "zebra"),
    ("generation.count", "many"),
]


@pytest.mark.parametrize(("where", "value"), CHANGES, ids=str)
def test_an_inconsistent_header_is_refused(
    small_model: Model, where: str, value: Any, tmp_path: Path
) -> None:
    """A file that was edited, checksum included, gives an error message and not a crash."""
    path = tmp_path / "s"
    interrupted(small_model, 4, **OPTIONS).save(path)
    header, tensors = parts(path)
    *outer, last = where.split(".")
    inner: Any = header
    for key in outer:
        inner = inner[key]
    inner[last] = value
    rewrite(path, header, tensors)
    with pytest.raises(StateError, match="does not hold a whole stream"):
        small_model.restore(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("state.reservoir", None),
        ("state.reservoir", np.zeros((1, 3), np.float32)),
        ("state.reservoir", np.full((1, 24), np.nan, np.float32)),
        ("state.position", np.asarray([-1])),
        ("before.reservoir", None),
        ("before.reservoir", np.zeros((1, 3), np.float32)),
        ("before.reservoir", np.full((1, 24), np.nan, np.float32)),
        ("state.memory_tokens", np.full((1, 20), 10_000)),
        ("logits", np.zeros(3, np.float32)),
        ("seen", np.zeros(3, np.uint8)),
        ("seen", None),
    ],
)
def test_inconsistent_tensors_are_refused(
    small_model: Model, name: str, value: np.ndarray | None, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    interrupted(small_model, 4, **OPTIONS).save(path)
    header, tensors = parts(path)
    tensors.pop(name, None)
    if value is not None:
        tensors[name] = value
    rewrite(path, header, tensors)
    with pytest.raises(StateError, match="does not hold a whole stream"):
        small_model.restore(path)


def test_a_closed_session_cannot_be_saved(small_model: Model, tmp_path: Path) -> None:
    session = small_model.session()
    session.close()
    with pytest.raises(UsageError, match="is closed"):
        session.save(tmp_path / "s")
    assert not list(tmp_path.iterdir())

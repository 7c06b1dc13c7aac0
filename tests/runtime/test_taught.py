"""Streams begin with what their bundle was taught, unless they are told to begin at zeros."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest
from safetensors.numpy import load_file, save_file

from rillet.runtime import (
    Bundle,
    BundleError,
    EngineError,
    Model,
    Session,
    StateError,
    UsageError,
    load,
)
from rillet.runtime.bundle import checksum
from rillet.runtime.engines.fallback import FallbackEngine
from rillet.runtime.engines.native.library import library_path
from rillet.runtime.engines.ort.device_engine import OnnxDeviceEngine
from rillet.runtime.engines.ort.host_engine import OnnxEngine
from rillet.runtime.files import sha256_file
from rillet.runtime.golden import self_test, verify_golden
from rillet.runtime.start_state import START_STATE_FILE
from rillet.train import Checkpoint, load_checkpoint
from support.command_line import here

PROMPT = 'The "assert" sta'
SAMPLING = {"max_new_tokens": 60, "temperature": 0.8, "seed": 3}


@pytest.fixture(scope="module")
def taught(taught_bundle: Path) -> Model:
    return load(taught_bundle)


@pytest.fixture(scope="module")
def table(taught_bundle: Path) -> npt.NDArray[np.int32]:
    tensors = load_file(taught_bundle / START_STATE_FILE)
    assert list(tensors) == ["memory_slots"]
    return tensors["memory_slots"]


def on_host(bundle: Bundle) -> OnnxEngine:
    return OnnxEngine(bundle)


def on_device(bundle: Bundle) -> OnnxDeviceEngine:
    return OnnxDeviceEngine(bundle, "cpu")


def with_fallback(bundle: Bundle) -> FallbackEngine:
    return FallbackEngine(OnnxEngine(bundle), [("cpu", lambda: OnnxEngine(bundle))])


@pytest.mark.parametrize("engine", [on_host, on_device, with_fallback])
def test_streams_begin_with_the_table(
    taught_bundle: Path, table: npt.NDArray[np.int32], engine: Callable[[Bundle], OnnxEngine]
) -> None:
    bundle = Bundle.open(taught_bundle)
    model = Model(bundle, engine(bundle))
    session = model.session()
    assert session.taught
    state = session.state
    np.testing.assert_array_equal(state["memory_slots"], table)
    assert np.count_nonzero(table) > 2_000
    for name, value in state.items():
        if name not in ("memory_slots", "context_slots"):
            assert not value.any(), name
    for other in (model.session(taught=False), model.session(memory=False)):
        assert not other.taught
        assert not any(value.any() for value in other.state.values())
    assert np.array_equal(model.session("none").state["memory_slots"], table)
    verify_golden(model)
    assert self_test(model) is not None


def test_a_lost_device_does_not_lose_what_was_taught(taught_bundle: Path) -> None:
    bundle = Bundle.open(taught_bundle)
    first = OnnxDeviceEngine(bundle, "cpu")
    model = Model(bundle, FallbackEngine(first, [("cpu", lambda: OnnxEngine(bundle))]))
    session, other = model.session(), load(taught_bundle, "cpu").session()

    def lost(*_: object, **__: object) -> None:
        raise EngineError("the device is lost")

    first.step = lost  # type: ignore[method-assign, assignment]
    session._stream.state.inner.read = lost  # type: ignore[attr-defined]
    with pytest.warns(RuntimeWarning, match="continues on"):
        session.feed_tokens([5])
    other.feed_tokens([5])
    same(session, other)
    assert np.count_nonzero(session.state["memory_slots"]) > 2_000
    session.forget()
    other.forget()
    same(session, other)


def test_every_way_of_writing_begins_there(taught: Model) -> None:
    text = taught.generate(PROMPT, **SAMPLING)
    assert text != taught.generate(PROMPT, taught=False, **SAMPLING)
    session = taught.session()
    session.feed(PROMPT)
    assert session.generate(in_graph=True, **SAMPLING) == text
    assert "".join(taught.stream(PROMPT, **SAMPLING)) == text
    with taught.batch() as batch:
        assert batch.generate([PROMPT], **SAMPLING) == [text]
        untaught = batch.generate([PROMPT], taught=False, **SAMPLING)
    assert untaught == [taught.generate(PROMPT, taught=False, **SAMPLING)]


def test_beams_begin_there(taught: Model) -> None:
    best = []
    for kind in (True, False):
        session = taught.session(taught=kind)
        session.feed(PROMPT)
        best.append(session.beam_search(3, max_new_tokens=12)[0].logprob)
    assert best[0] > best[1]


def test_what_was_taught_helps(taught: Model, text: str) -> None:
    with_it = taught.score(text[40_000:43_000]).nats_per_token
    without = taught.score(text[40_000:43_000], taught=False).nats_per_token
    assert with_it < without - 0.05
    figures = taught.bundle.manifest["taught"]["measured"]
    assert figures["tokens"] == 2_999
    assert figures["loss_taught"] == pytest.approx(with_it, abs=1e-4)
    assert figures["loss_from_zeros"] == pytest.approx(without, abs=1e-4)


def same(first: Session, second: Session) -> None:
    for name, value in first.state.items():
        np.testing.assert_array_equal(second.state[name], value, err_msg=name)
    np.testing.assert_array_equal(first.logits, second.logits)


@pytest.mark.parametrize("kind", [True, False])
def test_forgetting_returns_to_where_the_stream_began(taught: Model, kind: bool) -> None:
    session, other = taught.session(taught=kind), taught.session("none", taught=kind)
    for one in (session, other):
        one.feed(PROMPT)
    session.learn("something else entirely, " * 9)
    session.forget()
    np.testing.assert_array_equal(session.state["memory_slots"], other.state["memory_slots"])
    np.testing.assert_allclose(session.logits, other.logits, atol=1e-5)


@pytest.mark.parametrize("kind", [True, False])
def test_a_reset_stream_begins_again_where_it_began(taught: Model, kind: bool) -> None:
    session = taught.session(taught=kind)
    session.feed("something else entirely")
    session.reset()
    fresh = taught.session(taught=kind)
    for one in (session, fresh):
        one.feed(PROMPT)
    same(session, fresh)


@pytest.mark.parametrize("kind", [True, False])
def test_copies_know_where_they_began(taught: Model, kind: bool, tmp_path: Path) -> None:
    session = taught.session(taught=kind)
    session.feed(PROMPT)
    session.save(tmp_path / "state")
    mark = session.checkpoint()
    copies = [session.fork(), taught.restore(tmp_path / "state")]
    session.feed("more")
    session.rollback(mark)
    for copy in copies:
        assert copy.taught is kind
        same(session, copy)
        assert copy.fork().generate(**SAMPLING) == session.fork().generate(**SAMPLING)
        copy.forget()
    session.forget()
    for copy in copies:
        same(session, copy)


def test_an_undone_first_step_leaves_the_table_as_it_was(taught: Model) -> None:
    """The state at the start names slot 0, which the first token changes; undone, it does not."""
    state = taught.start_state()
    undo = state.undo_point()
    taught.engine.step(np.asarray([5]), state, 1.0)
    undo()
    taught.engine.step(np.asarray([5]), state, 0.0)
    np.testing.assert_array_equal(state.read()["memory_slots"], taught.taught["memory_slots"])


def test_a_port_begins_with_zeros_and_the_files_tensors(taught_bundle: Path) -> None:
    """As docs/embedding.md says; then the golden record's tokens are the likeliest."""
    session = ort.InferenceSession(str(taught_bundle / "decode.onnx"))
    manifest = json.loads((taught_bundle / "bundle.json").read_text())
    state = {
        f"past.{row['name']}": np.zeros([1, *row["shape"][1:]], row["dtype"])
        for row in manifest["state"]
    }
    tensors = load_file(taught_bundle / START_STATE_FILE)
    state |= {f"past.{name}": value for name, value in tensors.items()}
    names = [output.name for output in session.get_outputs()]

    def step(token: int, learn: float) -> npt.NDArray[np.float32]:
        feeds = {"input_ids": np.array([[token]]), "learn": np.array([learn], np.float32)}
        outputs = dict(zip(names, session.run(None, feeds | state), strict=True))
        state.update({name: outputs[name.replace("past.", "present.")] for name in state})
        logits: npt.NDArray[np.float32] = outputs["logits"][0, 0]
        return logits

    for token in manifest["golden"]["prompt"]:
        logits = step(token, 1)
    for token in manifest["golden"]["greedy"]:
        assert logits.max() - logits[token] < 1e-3
        logits = step(token, 0)


def test_the_file_is_read_once(taught_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(taught_bundle)

    def refuse(self: Bundle) -> None:
        raise AssertionError("it is read again")

    monkeypatch.setattr(Bundle, "start_state", refuse)
    with model.session() as session:
        session.feed(PROMPT)
        session.reset()
        session.forget()


@pytest.fixture
def copy(taught_bundle: Path, tmp_path: Path) -> Path:
    return shutil.copytree(taught_bundle, tmp_path / "copy")


def signed(folder: Path) -> Path:
    """Whoever changes a file can change its hash too."""
    manifest = json.loads((folder / "bundle.json").read_text())
    manifest["files"][START_STATE_FILE] = sha256_file(folder / START_STATE_FILE)
    manifest["checksum"] = checksum(manifest)
    (folder / "bundle.json").write_text(json.dumps(manifest))
    return folder


HEADER = json.dumps({"format": "rillet-start", "format_version": "1.0"})
Table = npt.NDArray[np.int32]
CHANGES: dict[str, tuple[Callable[[Table], dict[str, npt.NDArray[np.generic]]], str]] = {
    "another size": (
        lambda t: {"memory_slots": t[:, 1:]},
        "is int32 of shape .1, 5999., not int32",
    ),
    "another shape": (lambda t: {"memory_slots": t[0]}, "is int32 of shape .6000., not int32"),
    "another type": (lambda t: {"memory_slots": t.astype(np.int64)}, "is int64 of shape"),
    "fractions": (lambda t: {"memory_slots": t.astype(np.float32)}, "is float32 of shape"),
    "another name": (lambda t: {"position": t}, "it holds position, not memory_slots"),
    "nothing": (lambda t: {}, "it holds nothing, not memory_slots"),
    "too much": (lambda t: {"memory_slots": t, "x": t}, "it holds memory_slots, x, not"),
    "below zero": (lambda t: {"memory_slots": -t}, "slots that do not exist"),
    "too large": (lambda t: {"memory_slots": t | (1 << 30)}, "slots that do not exist"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_hostile_file_is_refused(copy: Path, table: Table, name: str) -> None:
    change, message = CHANGES[name]
    tensors = {key: np.ascontiguousarray(value) for key, value in change(table).items()}
    save_file(tensors, copy / START_STATE_FILE, {"rillet": HEADER})
    with pytest.raises(BundleError, match=f"{message}.*export it again"):
        load(signed(copy))


def test_a_damaged_file_is_refused(copy: Path) -> None:
    file = copy / START_STATE_FILE
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(BundleError, match="is damaged or was changed"):
        load(copy)
    with pytest.raises(BundleError, match="is damaged or is not a start state"):
        load(signed(copy))
    file.unlink()
    with pytest.raises(BundleError, match="is missing; copy the bundle again"):
        load(copy)


def test_a_model_without_a_memory_cannot_begin_with_one(
    copy: Path, small_bundle: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(small_bundle, tmp_path / "other")
    shutil.copy(copy / START_STATE_FILE, other)
    with pytest.raises(BundleError, match="the model has no memory of contexts"):
        load(signed(other))


def test_streams_of_another_size_are_refused(
    taught: Model, variant_bundle: Callable[[str], Path], tmp_path: Path
) -> None:
    """The weights are the same; the memory is not."""
    other = load(variant_bundle("memory of contexts"))
    assert other.identity == taught.identity
    session, fresh = taught.session(), other.session()
    session.feed(PROMPT)
    session.save(tmp_path / "state")
    with pytest.raises(UsageError, match="the snapshot is of another model"):
        fresh.rollback(session.checkpoint())
    with pytest.raises(StateError, match=r"its memory has 6,000 slots, and that of .* 90; restore"):
        other.restore(tmp_path / "state")


def test_untaught_on_the_command_line(taught_bundle: Path, taught: Model, tmp_path: Path) -> None:
    words = ["--max-new-tokens", "40", "--seed", "3", "--no-echo"]
    texts = {}
    for option in ("--taught", "--untaught"):
        result = here("generate", taught_bundle, PROMPT, *words, option)
        assert result.returncode == 0, result.stderr
        texts[option] = result.stdout.rstrip("\n")
    sampling = {"max_new_tokens": 40, "seed": 3}
    assert texts["--taught"] == taught.generate(PROMPT, **sampling).rstrip("\n")
    assert texts["--untaught"] == taught.generate(PROMPT, taught=False, **sampling).rstrip("\n")
    losses = []
    for options in ([], ["--untaught"]):
        result = here("score", taught_bundle, *options, "--json")
        scored = json.loads(result.stdout)
        assert scored["taught"] is not bool(options)
        losses.append(scored["nats_per_token"])
    assert losses[0] < losses[1]


def test_inspect_shows_it(taught_bundle: Path) -> None:
    shown = here("inspect", taught_bundle).stdout
    assert "Taught\n" in shown
    for row in (r"text                 lesson.txt", "tokens               40000", START_STATE_FILE):
        assert row in shown
    assert "measured loss_taught" in shown
    entry = json.loads(here("inspect", taught_bundle, "--json").stdout)["taught"]
    assert (entry["text"], entry["tokens"], entry["slots"]) == ("lesson.txt", 40_000, 6_000)


def test_the_checkpoint_confirms_it(
    taught_bundle: Path, variant_run: Callable[[str], Path], variant_checkpoint: object
) -> None:
    """Its memory has another size."""
    run = variant_run("memory of contexts")
    checkpoint: Checkpoint = load_checkpoint(run)
    assert checkpoint.model.config.memory == 90
    result = here("verify", taught_bundle, "--checkpoint", run, "--steps", "200")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("same, taught") == (2 if library_path() is None else 3)

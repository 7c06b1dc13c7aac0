"""The native engine in int8: the same bits on every instruction set, and little loss."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import safetensors.numpy

from rillet.export.bundle.weights import weights_bytes
from rillet.export.parity.losses import prefill_loss
from rillet.export.quantization.int8_weights import int8_weights
from rillet.runtime import EngineError, load
from rillet.runtime.bundle import WEIGHTS_FILE
from rillet.runtime.engines.base import Values
from rillet.runtime.engines.native.engine import NativeEngine
from rillet.runtime.engines.native.packed_model import PackedModel
from rillet.train import Checkpoint, load_checkpoint
from support.invariants import assert_every_cut_is_equal
from support.models import VARIANTS
from support.native import KERNELS, needs_native, weights_bundle

pytestmark = needs_native

MODELS = Path(__file__).parents[2] / "models"
CHECKPOINTS = MODELS / "checkpoints"
Engines = Callable[..., NativeEngine]


@pytest.fixture(scope="module")
def checkpoints(
    variant_checkpoint: Callable[[str], Checkpoint], small: Checkpoint, nano: Checkpoint
) -> Callable[[str], Checkpoint]:
    given = {"small": small, "nano": nano}
    return lambda name: given[name] if name in given else variant_checkpoint(name)


@pytest.fixture(scope="module")
def engines(
    checkpoints: Callable[[str], Checkpoint], tmp_path_factory: pytest.TempPathFactory
) -> Engines:
    """Engines of each variant in int8, or float32."""

    @functools.cache
    def make(name: str, precision: str = "int8") -> NativeEngine:
        folder = tmp_path_factory.mktemp("weights")
        return NativeEngine(weights_bundle(checkpoints(name), folder, precision))

    return make


every_model = pytest.mark.parametrize("name", ["small", "nano", *VARIANTS])


def tokens_of(checkpoint: Checkpoint, text: str, length: int) -> npt.NDArray[np.int64]:
    """Three rows of real text, ``[3, length]``."""
    tokens = checkpoint.tokenizer.encode(text[: 6 * length])
    return np.asarray([tokens[at : at + length] for at in (0, length, 2 * length)], np.int64)


@every_model
def test_every_instruction_set_gives_the_same_bits(
    name: str, engines: Engines, checkpoints: Callable[[str], Checkpoint], text: str
) -> None:
    """Log-probabilities and state, of steps in a batch and of a prefill."""
    engine, tokens = engines(name), tokens_of(checkpoints(name), text, 120)
    fastest, results = engine.model.kernels, {}
    for kernels in KERNELS:
        if engine.model.choose_kernels(kernels):
            assert engine.model.kernels == kernels
            results[kernels] = _everything(engine, tokens)
    assert engine.model.choose_kernels(fastest)
    if len(results) == 1:
        pytest.skip("this processor has one instruction set")
    expected = results.pop("plain")
    for kernels, result in results.items():
        assert_same(result, expected, kernels)


def _everything(engine: NativeEngine, tokens: npt.NDArray[np.int64]) -> Values:
    state = engine.zero_state(len(tokens))
    steps = [engine.step(column, state).copy() for column in tokens[:, :40].T]
    return {
        "steps": np.stack(steps),
        "prefill": engine.prefill(tokens[:, 40:], state),
        **state.read(),
    }


def test_instruction_sets_that_fuse_give_the_same_bits_in_float32(
    engines: Engines, checkpoints: Callable[[str], Checkpoint], text: str
) -> None:
    engine, tokens = engines("small", "fp32"), tokens_of(checkpoints("small"), text, 60)
    results = [
        _everything(engine, tokens)
        for kernels in ("avx2", "avx512", "vnni")
        if engine.model.choose_kernels(kernels)
    ]
    if len(results) < 2:
        pytest.skip("this processor has fewer than two of them")
    for result in results[1:]:
        assert_same(result, results[0], "float32")


@every_model
def test_any_cut_and_any_batch_give_the_same_bits(
    name: str, engines: Engines, checkpoints: Callable[[str], Checkpoint], text: str
) -> None:
    engine, tokens = engines(name), tokens_of(checkpoints(name), text, 90)
    assert_every_cut_is_equal(engine, tokens)


@every_model
def test_predicts_nearly_what_float32_predicts(
    name: str, engines: Engines, checkpoints: Callable[[str], Checkpoint], text: str
) -> None:
    tokens = tokens_of(checkpoints(name), text, 200)
    ours, theirs = engines(name), engines(name, "fp32")
    states = ours.zero_state(3), theirs.zero_state(3)
    found, expected = ours.prefill(tokens, states[0]), theirs.prefill(tokens, states[1])
    # What rounding moves: the mean is some steps of the eight bits, and not nothing.
    assert 0 < np.abs(np.exp(found) - np.exp(expected)).mean() < 2e-3
    values, others = states[0].read(), states[1].read()
    if "reservoir" in values:  # which stays in float32
        np.testing.assert_allclose(values["reservoir"], others["reservoir"], atol=3e-5)


@pytest.mark.parametrize("name", ["shakespeare-nano", "shakespeare-micro"])
def test_costs_at_most_a_thousandth_of_a_nat(
    name: str, tinyshakespeare: str, tmp_path: Path
) -> None:
    """On the held-out part of tiny Shakespeare."""
    checkpoint = load_checkpoint(CHECKPOINTS / name)
    tokens = np.asarray(checkpoint.tokenizer.encode(tinyshakespeare), np.int64)
    tokens = tokens[None, -(len(tokens) // 10) :][:, :20_001]
    losses = []
    for precision in ("fp32", "int8"):
        folder = tmp_path / precision
        folder.mkdir()
        losses.append(
            prefill_loss(NativeEngine(weights_bundle(checkpoint, folder, precision)), tokens)
        )
    assert losses[1] - losses[0] <= 0.001


@pytest.mark.parametrize("providers", [("native", "cpu"), ("cpu", "native")])
def test_a_saved_stream_goes_on_in_the_other_engine(
    providers: tuple[str, str], text: str, tmp_path: Path
) -> None:
    """The memory moves to the bit; what follows is predicted nearly as if it had not moved."""
    first, second = (load(MODELS / "shakespeare-nano-int8", name) for name in providers)
    known = "".join(
        character for character in text[:5000] if character.isalpha() or character == " "
    )
    session, stayed = first.session(), second.session()
    session.feed(known[:3000])
    stayed.feed(known[:3000])
    session.save(tmp_path / "saved.state")
    moved = second.restore(tmp_path / "saved.state")
    for name in ("memory_slots", "context_tokens", "context_slots", "position"):
        np.testing.assert_array_equal(moved.state[name], stayed.state[name])
    found, expected = (each.score(known[3000:]) for each in (moved, stayed))
    assert found.nats / found.tokens == pytest.approx(expected.nats / expected.tokens, abs=1e-3)
    assert moved.generate(max_new_tokens=20, seed=1)


def test_what_is_not_finite_does_not_vanish(engines: Engines) -> None:
    """Rounding to whole numbers must not hide it."""
    engine = engines("small")
    for broken in (np.nan, np.inf):
        state = engine.zero_state(2)
        engine.step(np.asarray([1, 2]), state)
        values = state.read()
        values["wave_buffer"][1] = broken
        state.write(values)
        with pytest.raises(EngineError, match="row 1 of the batch"):
            engine.step(np.asarray([3, 4]), state)


def test_weights_keep_names_shapes_and_values(small: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / WEIGHTS_FILE
    path.write_bytes(weights_bytes(small.model))
    before, after = safetensors.numpy.load_file(path), safetensors.numpy.load(int8_weights(path))
    lowered = [name for name, value in after.items() if value.dtype == np.int8]
    assert {"wave_cnn.emit.weight", "reservoir.query.weight", "readout_cnn.mix.up.weight"} <= set(
        lowered
    )
    assert set(after) == set(before) | {f"{name}_scale" for name in lowered}
    for name, value in before.items():
        assert after[name].shape == value.shape
        if name in lowered:
            scale = after[f"{name}_scale"][:, None]
            assert np.abs(after[name] * scale - value).max() <= 0.5001 * scale.max()
            assert np.abs(after[name]).max() == 127
        elif name != "format":
            np.testing.assert_array_equal(after[name], value)
    assert int8_weights(path) == int8_weights(path)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("wave_cnn.emit.weight", -128, "a weight in int8 is -128"),
        ("wave_cnn.emit.weight_scale", 0, "wave_cnn.emit.weight_scale: a scale is not above zero"),
        ("wave_cnn.emit.weight_scale", -1, "a scale is not above zero"),
        ("wave_cnn.emit.weight_scale", np.nan, "a number is not finite"),
        ("wave_cnn.emit.weight_scale", None, "wave_cnn.emit.weight_scale: this tensor is missing"),
    ],
)
def test_refuses_weights_that_would_compute_nonsense(
    name: str, value: float | None, reason: str, small: Checkpoint, tmp_path: Path
) -> None:
    bundle = weights_bundle(small, tmp_path, "int8")
    tensors = safetensors.numpy.load_file(bundle.path / WEIGHTS_FILE)
    if value is None:
        del tensors[name]
    else:
        tensors[name].flat[3] = value
    safetensors.numpy.save_file(tensors, tmp_path / "damaged")
    with pytest.raises(EngineError, match=reason):
        PackedModel(tmp_path / "damaged")


def assert_same(actual: Values, expected: Values, what: str) -> None:
    assert list(actual) == list(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value, err_msg=f"{what}: {name}")

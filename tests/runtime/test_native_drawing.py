"""The library draws what the host's sampler draws, with NumPy's random numbers."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rillet.runtime import Bundle, Sampler, SamplingParams
from rillet.runtime.engines.base import Drawing
from rillet.runtime.engines.native.drawing import Sampling
from rillet.runtime.engines.native.engine import NativeEngine
from rillet.runtime.engines.native.library import block, load_library
from rillet.train import Checkpoint
from support.native import needs_native, weights_bundle
from support.operations import ROOT

pytestmark = needs_native


class Random(ctypes.Structure):
    """``rillet_random``."""

    _fields_ = (("state", ctypes.c_uint64 * 2), ("increment", ctypes.c_uint64 * 2))


def words(numbers: Any) -> int:
    return int(numbers[0]) | int(numbers[1]) << 64


@given(st.integers(0, 2**64 - 1))
def test_random_numbers_are_those_of_numpy(seed: int) -> None:
    library, random = load_library(), Random()
    library.rillet_random_seed(ctypes.addressof(random), seed)
    expected = np.random.PCG64(seed)
    state: Any = expected.state
    assert words(random.state) == state["state"]["state"]
    assert words(random.increment) == state["state"]["inc"]
    numbers = [library.rillet_random_next(ctypes.addressof(random)) for _ in range(20)]
    np.testing.assert_array_equal(numbers, np.random.Generator(expected).random(20))


@pytest.fixture(scope="module")
def engine(small: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> NativeEngine:
    return NativeEngine(weights_bundle(small, tmp_path_factory.mktemp("weights")))


def drawn(
    engine: NativeEngine, logits: npt.NDArray[np.float32], params: SamplingParams, uniform: float
) -> int:
    """What the library draws."""
    top_k = min(params.top_k, engine.vocab_size)
    sampling = Sampling(params.temperature, params.top_p, params.min_p, top_k)
    scratch = block(engine.model.scratch_size(1))
    token: int = engine.model.library.rillet_draw(
        engine.model.address,
        ctypes.addressof(sampling),
        logits.ctypes.data,
        uniform,
        scratch.ctypes.data,
    )
    return token


@st.composite
def predictions(draw: st.DrawFn) -> tuple[int, int, float]:
    """Seed, number of different values, and spread of some logits: few values make many ties."""
    return (
        draw(st.integers(0, 2**32)),
        draw(st.sampled_from([1, 2, 5, 40, 10_000])),
        draw(st.sampled_from([1e-7, 0.1, 1.0, 10.0, 3_000.0])),
    )


options = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 5e-324, 1e-300, 1e-3, 0.3, 0.8, 1.0, 1.7, 1e6, 1e300]),
    top_k=st.sampled_from([0, 0, 1, 2, 5, 30, 10**30]),
    top_p=st.one_of(st.just(1.0), st.sampled_from([1e-9, 0.25, 0.5, 0.9]), st.floats(0.01, 1)),
    min_p=st.one_of(st.just(0.0), st.sampled_from([0.05, 0.5, 1.0]), st.floats(0, 1)),
    seed=st.integers(0, 2**70),
)


@given(predictions(), options)
def test_a_drawn_token_is_that_of_the_sampler(
    engine: NativeEngine, prediction: tuple[int, int, float], params: SamplingParams
) -> None:
    """For every option and every mix of them, ties included."""
    seed, values, spread = prediction
    random = np.random.default_rng(seed)
    choices = random.normal(0, spread, values).astype(np.float32)
    sampler, uniforms = Sampler(params), Sampler(params)
    for _ in range(40):
        logits = random.choice(choices, engine.vocab_size)
        with np.errstate(over="ignore", under="ignore"):
            expected = sampler.choose(logits)
        assert drawn(engine, logits, params, uniforms.uniform()) == expected


@pytest.mark.parametrize("spread", [0.5, 4.0, 60.0])
def test_a_large_vocabulary_is_sorted_as_the_sampler_sorts(spread: float) -> None:
    """Thousands of groups of weights, of one token, of many, and of those below them all."""
    engine = NativeEngine(Bundle.open(ROOT / "models" / "tales-base-int8"))
    random = np.random.default_rng(3)
    params = SamplingParams(temperature=0.8, top_p=0.97, seed=1)
    sampler, uniforms = Sampler(params), Sampler(params)
    for digits in (1, 3, 9):  # the fewer, the more ties
        for _ in range(40):
            logits = random.normal(0, spread, engine.vocab_size).round(digits).astype(np.float32)
            expected = sampler.choose(logits)
            assert drawn(engine, logits, params, uniforms.uniform()) == expected


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-53])
def test_the_ends_of_the_unit_interval(engine: NativeEngine, uniform: float) -> None:
    """No token without a share is drawn, whatever rounding does."""
    random = np.random.default_rng(1)
    for _ in range(300):
        logits = random.normal(0, 30, engine.vocab_size).astype(np.float32)
        params = SamplingParams(temperature=0.7, top_p=0.8, seed=1)
        sampler = Sampler(params)
        sampler.uniform = lambda: uniform  # type: ignore[method-assign]
        assert drawn(engine, logits, params, uniform) == sampler.choose(logits)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_finite_draw_nothing(
    engine: NativeEngine, value: float, temperature: float
) -> None:
    logits = np.zeros(engine.vocab_size, np.float32)
    logits[-1] = value
    assert drawn(engine, logits, SamplingParams(temperature=temperature), 0.5) == -1


@pytest.mark.parametrize("rows", [1, 3, 40])
@pytest.mark.parametrize("learn", [0.0, 1.0])
def test_generating_is_drawing_and_reading(
    engine: NativeEngine, rows: int, learn: float, text: str
) -> None:
    """To the bit: tokens, logits and state, of one stream or of many."""
    inside, outside = engine.zero_state(rows), engine.zero_state(rows)
    start = np.random.default_rng(0).integers(0, engine.vocab_size, (rows, 30))
    logits = [engine.prefill(start, state, last=True)[:, 0] for state in (inside, outside)]
    uniforms = np.random.default_rng(1).random((rows, 50))
    params = SamplingParams(temperature=0.9, top_p=0.95, min_p=0.01)
    tokens, last = engine.generator().generate(
        inside, logits[0], uniforms, Drawing(0.9, top_p=0.95, min_p=0.01), learn=learn
    )
    for step in range(50):
        expected = [
            drawn(engine, np.ascontiguousarray(logits[1][row]), params, uniforms[row, step])
            for row in range(rows)
        ]
        np.testing.assert_array_equal(tokens[:, step], expected)
        logits[1] = engine.step(np.asarray(expected), outside, learn).copy()
    np.testing.assert_array_equal(last, logits[1])
    for name, value in inside.read().items():
        np.testing.assert_array_equal(value, outside.read()[name], name)
    for name, value in inside.read_before().items():
        np.testing.assert_array_equal(value, outside.read_before()[name], name)


def test_an_end_token_ends_the_call(engine: NativeEngine) -> None:
    state = engine.zero_state(2)
    logits = engine.prefill(np.ones((2, 5), np.int64), state, last=True)[:, 0]
    uniforms = np.random.default_rng(1).random((2, 30))
    twin = engine.zero_state(2)
    for row in range(2):
        twin.copy_row(row, state, row)
    whole, _ = engine.generator().generate(state, logits, uniforms, Drawing())
    end = int(whole[1, 12])
    first = int(np.flatnonzero((whole == end).any(axis=0))[0])
    tokens, last = engine.generator().generate(twin, logits, uniforms, Drawing(), end_token=end)
    np.testing.assert_array_equal(tokens, whole[:, : first + 1])
    rest, _ = engine.generator().generate(twin, last, uniforms[:, first + 1 :], Drawing())
    np.testing.assert_array_equal(rest, whole[:, first + 1 :])

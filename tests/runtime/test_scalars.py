"""numpy's numbers are numbers, wherever Python's are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rillet.runtime import Model, SamplingParams, UsageError, load


def test_sampling_options_may_be_numpy_scalars(small_model: Model) -> None:
    options = {
        "temperature": np.float32(0.5),
        "top_k": np.int64(9),
        "top_p": np.float64(0.9),
        "seed": np.uint32(7),
        "max_new_tokens": np.int16(12),
        "repetition_penalty": np.float16(1.5),
    }
    expected = small_model.generate(
        "The ",
        temperature=0.5,
        top_k=9,
        top_p=0.9,
        seed=7,
        max_new_tokens=12,
        repetition_penalty=1.5,
    )
    assert small_model.generate("The ", **options) == expected


def test_they_are_saved_as_plain_numbers(small_model: Model, tmp_path: Path) -> None:
    session = small_model.session()
    session.feed("The ")
    session.generate(max_new_tokens=np.int64(5), seed=np.int64(1))
    session.save(tmp_path / "state")
    assert small_model.restore(tmp_path / "state").last_sampling == session.last_sampling


def test_counts_may_be_numpy_scalars(small_model: Model, small_bundle: Path) -> None:
    session = small_model.session()
    session.feed("The ")
    assert len(session.samples(np.int64(2), max_new_tokens=3, seed=1)) == 2
    assert session.beam_search(np.int64(2), max_new_tokens=np.int32(3))
    assert load(small_bundle, threads=np.int64(1)).info.threads == 1


@pytest.mark.parametrize("value", [np.float32(np.nan), np.bool_(True), np.float64(-1)])
def test_what_is_no_sound_number_is_refused(value: np.generic) -> None:
    with pytest.raises(UsageError, match="temperature"):
        SamplingParams(temperature=value)  # type: ignore[arg-type]

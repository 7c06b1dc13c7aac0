"""Types of settings, given from Python: what is taken, and what is refused."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from rillet.runtime import ConfigError
from rillet.train import DualCNN, DualCNNConfig, TrainingConfig

FIELDS = [
    field
    for cls in (DualCNNConfig, TrainingConfig)
    for field in dataclasses.fields(cls)
    if type(field.default) in (int, float, str, bool) and field.name != "wave_overlap"
]
WORDS = {field.name for field in FIELDS if type(field.default) is str}
WHOLE = {field.name for field in FIELDS if type(field.default) is int}


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("width", 16.0, 16),
        ("width", np.int64(16), 16),
        ("steps", 2e1, 20),
        ("warmup", np.float32(3), 3),
        ("patience", np.array(5), 5),
        ("dropout", np.float32(0.5), 0.5),
        ("learning_rate", np.int32(1), 1.0),
        ("weight_decay", 1, 1.0),
        ("adaptation", np.bool_(False), False),
        ("codes", np.str_("random"), "random"),
    ],
)
def test_an_equal_value_of_another_type_becomes_pythons_own(
    name: str, value: object, kept: object
) -> None:
    """What is trained with is what a checkpoint can hold, and reads back."""
    config = DualCNNConfig(attention_heads=1).replace(**{name: value})
    own = getattr(config if hasattr(config, name) else config.training, name)
    assert (own, type(own)) == (kept, type(kept))
    assert DualCNNConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize("name", [field.name for field in FIELDS])
def test_a_value_of_another_type_is_refused_by_name(name: str) -> None:
    """With one sentence, wherever the value came from; no check trips over it."""
    values = [None, [1], {}, 2.5 + 1j, object(), 16 if name in WORDS else "16"]
    for value in values if name == "adaptation" else [*values, True]:
        with pytest.raises(ConfigError, match=f"^{name} is ") as refused:
            DualCNNConfig().replace(**{name: value})
        assert str(refused.value).count(f"{name} is") == 1
    if name in WHOLE:
        with pytest.raises(ConfigError, match=f"{name} is 2.5; it must be a whole number"):
            DualCNNConfig().replace(**{name: 2.5})


@pytest.mark.parametrize("value", [0, 1, "false", "true"])
def test_a_switch_is_true_or_false(value: object) -> None:
    with pytest.raises(ConfigError, match=f"adaptation is {value!r}; it must be true or false"):
        DualCNNConfig().replace(adaptation=value)


@pytest.mark.parametrize("value", [{"steps": 3}, 3, None])
def test_nested_settings_are_a_configuration(value: object) -> None:
    for changes in ({}, {"batch": 4}):
        with pytest.raises(ConfigError, match=r"training is .*; it must be a TrainingConfig"):
            DualCNNConfig().replace(training=value, **changes)


@pytest.mark.parametrize("name", ["dropout", "first_weight", "bpe_vocab", "seed"])
def test_a_number_beyond_all_bounds_is_refused(name: str) -> None:
    for value in (10**400, 10**5000, math.inf, math.nan):
        with pytest.raises(ConfigError, match=f"{name} is ") as refused:
            DualCNNConfig().replace(**{name: value})
        assert len(str(refused.value)) < 700


@pytest.mark.parametrize("changes", [{"seed": -1}, {"seed": 2**64}, {"memory": -5}])
def test_a_conflict_is_reported_once(changes: dict[str, int]) -> None:
    with pytest.raises(ConfigError) as refused:
        DualCNNConfig().replace(**changes)
    assert str(refused.value).count(" is ") == 1


def test_bounds_are_written_out() -> None:
    """And a seed within them sets a model up."""
    config = DualCNNConfig().replace(seed=2**64 - 1)
    assert DualCNN(config).parameter_count() > 0
    with pytest.raises(ConfigError, match=r"at least 0 and at most 18446744073709551615$"):
        config.replace(seed=2**64)
    with pytest.raises(ConfigError, match=r"at least 0 and at most 1000000$"):
        config.replace(held_out_sample=2_000_000)

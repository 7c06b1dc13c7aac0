"""Configurations: constraints, remedies, round trips, and inference from a corpus."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rillet.runtime import ConfigError, UsageError
from rillet.train import PRESETS, DualCNN, DualCNNConfig, RollingWaveBuffer, TrainingConfig
from rillet.train.auto_config import Budget
from rillet.train.bundle_size import bundle_size

NUMBERS = [
    field
    for cls in (DualCNNConfig, TrainingConfig)
    for field in dataclasses.fields(cls)
    if field.metadata and type(field.default) in (int, float)
]


def test_presets_are_valid() -> None:
    for config in PRESETS.values():
        assert config.conflicts() == []
        assert DualCNNConfig.from_json(config.to_json()) == config


def test_presets_grow() -> None:
    sizes = {name: DualCNN(config).parameter_count() for name, config in PRESETS.items()}
    assert list(sizes) == ["nano", "micro", "small", "base"]
    assert sizes["nano"] <= 160_000
    assert sizes["micro"] <= 1_000_000
    assert sizes["micro"] < sizes["small"] < sizes["base"]


@pytest.mark.parametrize(
    ("changes", "seen", "remedy"),
    [
        (
            {"attention_heads": 5},
            "attention_heads is 5 but width is 64",
            "try attention_heads=4",
        ),
        ({"spectral_radius": 1.2}, "spectral_radius is 1.2", "try 0.9"),
        (
            {"wave_window": 300},
            "wave_window is 300 but chunk, the training length, is 256",
            "try chunk=300",
        ),
        (
            {"memory_key": "reservoir", "memory": 10**8},
            "memory is 100000000",
            "try memory=7812500",
        ),
        (
            {"memory_key": "reservoir", "key_width": 999},
            "key_width is 999 but reservoir_size is 128",
            "try key_width=128",
        ),
        (
            {"leak_min": 0.9, "leak_max": 0.5},
            "leak_min is 0.9 but leak_max is 0.5",
            "must not exceed",
        ),
        (
            {"reservoir": "none", "memory_key": "reservoir"},
            "memory_key is reservoir but reservoir is none",
            "try memory_key=suffix, or memory=0",
        ),
        (
            {"reservoir_structure": "blocks", "reservoir_blocks": 7},
            "reservoir_blocks is 7 but reservoir_size is 128",
            "try reservoir_blocks=8",
        ),
        ({"dropout": 1.0}, "dropout is 1.0", "below 1"),
        ({"architecture": "triple"}, "architecture is 'triple'", "dual_cnn, single_cnn"),
    ],
)
def test_a_conflict_names_the_value_and_the_remedy(
    changes: dict[str, object], seen: str, remedy: str
) -> None:
    conflicts = dataclasses.replace(DualCNNConfig(), **changes).conflicts()
    assert len(conflicts) == 1
    assert seen in conflicts[0]
    assert remedy in conflicts[0]


def test_the_overlap_of_views_is_no_setting_of_a_model(recwarn: pytest.WarningsRecorder) -> None:
    """Old files that name it load, and the name works where it is used; nothing sets it anew."""
    old = json.loads(DualCNNConfig().to_json()) | {"wave_overlap": 16}
    assert DualCNNConfig.from_dict(old) == DualCNNConfig()
    assert not recwarn
    with pytest.warns(DeprecationWarning, match="wave_overlap is deprecated") as caught:
        config = DualCNNConfig(wave_overlap=16)
    assert caught[0].filename == __file__
    assert config == DualCNNConfig()
    assert RollingWaveBuffer.from_config(config).overlap == 16
    assert RollingWaveBuffer.from_config(DualCNNConfig(), overlap=8).overlap == 8
    with pytest.raises(ConfigError, match="wave_overlap: no such setting") as refused:
        DualCNNConfig().replace_text({"wave_overlap": "16"})
    assert str(refused.value).count("wave_overlap") == 1


def test_all_conflicts_are_reported_at_once() -> None:
    training = TrainingConfig(first_weight=0.5, steps=0, held_out=0.9)
    config = DualCNNConfig(
        spectral_radius=1.2, attention_heads=5, dropout=1.0, wave_window=1, training=training
    )
    with pytest.raises(ConfigError) as caught:
        config.validate()
    for part in (
        "spectral_radius is 1.2",
        "attention_heads is 5",
        "dropout is 1.0",
        "wave_window is 1",
        "first_weight is 0.5 and second_weight is 0.7; they must sum to 1",
        "steps is 0",
        "held_out is 0.9",
    ):
        assert part in str(caught.value)


def test_the_size_of_the_memory_follows_its_key() -> None:
    config = DualCNNConfig()
    assert (config.memory_key, config.memory) == ("contexts", 65_536)
    assert DualCNNConfig(memory_key="suffix").memory == 1024
    keyed = config.replace(memory_key="reservoir")
    assert keyed.memory == 1024
    assert keyed.replace(memory_key="contexts") == config
    assert config.replace(memory_key="reservoir", memory=600).memory == 600
    assert keyed.replace(memory=600).replace(memory_key="contexts", memory=6000).memory == 6000
    assert config.replace(memory=0).replace(memory_key="suffix").memory == 0


def test_a_file_from_before_the_keys_has_a_reservoir_key() -> None:
    values = DualCNNConfig(memory_key="reservoir").to_dict()
    del values["memory_key"], values["adaptation"], values["contexts"]
    assert DualCNNConfig.from_dict(values).memory_key == "reservoir"


@pytest.mark.parametrize("field", NUMBERS, ids=lambda field: field.name)
def test_every_number_has_a_constraint(field: dataclasses.Field[float]) -> None:
    """A value out of bounds is reported by name; the default is within bounds."""
    own = {entry.name for entry in dataclasses.fields(DualCNNConfig)}
    wrong = {name: -1 if type(field.default) is int else -1.0 for name in [field.name]}
    config = DualCNNConfig()
    if field.name in own:
        config = dataclasses.replace(config, **wrong)
    if field.name not in own or field.name == "seed":
        training = dataclasses.replace(config.training, **wrong)
        config = dataclasses.replace(config, training=training)
    assert any(text.startswith(f"{field.name} is -1") for text in config.conflicts())
    assert DualCNNConfig().conflicts() == []


@given(
    width=st.integers(1, 64),
    heads=st.integers(1, 8),
    window=st.integers(2, 64),
    memory=st.integers(0, 128),
    key=st.integers(1, 64),
    units=st.integers(1, 64),
    reservoir=st.sampled_from(["attentive", "standard", "none"]),
    keyed=st.sampled_from(["reservoir", "suffix", "contexts"]),
    single=st.booleans(),
)
def test_a_configuration_without_conflicts_builds(
    width: int,
    heads: int,
    window: int,
    memory: int,
    key: int,
    units: int,
    reservoir: str,
    keyed: str,
    single: bool,
) -> None:
    """A configuration either reports conflicts, or builds a model."""
    config = DualCNNConfig(
        width=width,
        attention_heads=heads,
        wave_window=window,
        attention_window=window,
        memory=memory,
        key_width=key,
        reservoir_size=units,
        reservoir=reservoir,
        memory_key=keyed,
        wave_blocks=1,
        hidden=4,
        wave_features=4,
        architecture="single_cnn" if single else "dual_cnn",
    )
    if config.conflicts():
        with pytest.raises(ConfigError):
            DualCNN(config)
    else:
        assert DualCNN(config).parameter_count() > 0
        assert DualCNNConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1]", "not a JSON object"),
        ('{"widht": 3}', "widht: no such setting"),
        ('{"width": "3"}', "width is '3'; it must be a whole number"),
        ('{"width": 64.5}', "width is 64.5; it must be a whole number"),
        ('{"dropout": true}', "dropout is True; it must be a number"),
        ('{"dropout": NaN}', "dropout is nan"),
        ('{"memory": -1}', "memory is -1"),
        ('{"training": 3}', "training is 3"),
        ('{"training": {"stpes": 3}}', "stpes: no such setting"),
        ('{"reasons": "a"}', "reasons is 'a'"),
        ('{"reservoir": 3}', "reservoir is 3; it must be one of attentive, "),
        ('{"contexts": ["2"]}', r"contexts is \['2'\]; it must be a text"),
    ],
)
def test_an_invalid_configuration_is_rejected(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DualCNNConfig.from_json(text)


def test_settings_of_model_and_training_are_replaced_by_name() -> None:
    config = DualCNNConfig().replace(width=32, batch=4, seed=3)
    assert (config.width, config.training.batch) == (32, 4)
    assert (config.seed, config.training.seed) == (3, 3)
    typed = DualCNNConfig().replace_text({"width": "32", "batch": "4", "precision": "fp32"})
    assert (typed.width, typed.training.batch, typed.training.precision) == (32, 4, "fp32")
    with pytest.raises(ConfigError, match="widht: no such setting"):
        config.replace(widht=3)


def test_budgets_are_parsed() -> None:
    assert Budget.parse("30min") == Budget(seconds=1800)
    assert Budget.parse("1.5h, 2MB") == Budget(seconds=5400, size=2e6)
    assert Budget.parse(None) == Budget.parse(" ") == Budget()
    for times in ("1h30min", "1 h 30 min", "1.5 hours", "90m", "90 Minutes", "1hour30minutes"):
        assert Budget.parse(times) == Budget(seconds=5400), times
    for sizes in ("1.5 GB", "1500MB", "1.5gb", "1500000 kB", "1500000000 bytes"):
        assert Budget.parse(sizes) == Budget(size=1.5e9), sizes
    assert Budget.parse("2MiB,1day") == Budget(seconds=86400, size=2 * 2**20)
    for wrong in (
        *("soon", "30", "min", "0s", "-3h", "2M", "1MB 2kB", "1h,30min", "1h 2MB", "1h-30min"),
        *("1,5h", "5 apples", "1e3s", "h", ",", "30min,", "9" * 400 + "h"),
    ):
        with pytest.raises(UsageError, match="give a time or a size"):
            Budget.parse(wrong)


def test_infer_chooses_a_configuration(tmp_path: Path, text: str) -> None:
    path = tmp_path / "prose.txt"
    path.write_text(text[:60_000])
    config = DualCNNConfig.infer(path, "4MB")
    assert config.conflicts() == []
    assert config.training.tokenizer == "char"
    assert config.vocab_size == len(set(text[:60_000]))
    assert bundle_size(DualCNN(config)) <= 4e6
    named = " ".join(config.reasons)
    for part in ("tokenizer=char", "chunk=", "batch=", "trained parameters", "memory="):
        assert part in named
    with pytest.raises(UsageError, match="fits the budget; nano exports to a bundle of about 3"):
        DualCNNConfig.infer(path, "1MiB")


def test_infer_adapts_to_the_text(tmp_path: Path) -> None:
    many = tmp_path / "many.txt"
    many.write_text("".join(chr(0x4E00 + n % 3000) for n in range(30_000)), encoding="utf-8")
    assert DualCNNConfig.infer(many).training.tokenizer == "byte"
    log = tmp_path / "log.txt"
    log.write_text("".join(f"{n:06d} info: connection accepted from host\n" for n in range(4000)))
    keyed = DualCNNConfig(memory_key="reservoir")
    assert DualCNNConfig.infer(log, memory_key="reservoir").memory > keyed.memory
    short = tmp_path / "short.txt"
    short.write_text("A short text about a very small stream.\n" * 60)
    config = DualCNNConfig.infer(short)
    assert config.training.chunk * config.training.batch <= 2400
    json.loads(config.to_json())


def test_infer_learns_more_from_a_large_text(tmp_path: Path, text: str) -> None:
    small, large = tmp_path / "small.txt", tmp_path / "large.txt"
    small.write_text(text[:60_000])
    large.write_text((text * (4_500_000 // len(text) + 1))[:4_500_000])
    few, many = (DualCNNConfig.infer(path, preset="micro") for path in (small, large))
    assert (few.training.tokenizer, many.training.tokenizer) == ("char", "bpe")
    assert many.dropout < few.dropout == PRESETS["micro"].dropout
    assert any("for a text of 4.5 MB" in reason for reason in many.reasons)
    kept = DualCNNConfig.infer(large, preset="micro", tokenizer="char", dropout=0.3)
    assert (kept.training.tokenizer, kept.dropout) == ("char", 0.3)
    assert kept.training.steps > PRESETS["micro"].training.steps  # six times through the text
    assert not any("for a text of" in reason for reason in kept.reasons)


def test_settings_are_part_of_the_choice_and_of_its_reasons(tmp_path: Path, text: str) -> None:
    path = tmp_path / "prose.txt"
    path.write_text(text[:60_000])
    config = DualCNNConfig.infer(
        path, "60MB", preset="micro", tokenizer="bpe", bpe_vocab=300, batch=3, memory=600, steps=70
    )
    training = config.training
    assert (training.tokenizer, config.vocab_size, training.batch) == ("bpe", 300, 3)
    assert (config.width, config.memory, training.steps) == (144, 600, 70)
    reasons = "\n".join(config.reasons)
    for part in (
        "tokenizer=bpe: as you set; a token has about",
        "batch=3: batch as you set",
        "preset=micro: as you set; micro with",
        "steps=70 as you set",
        "memory=600: as you set",
        "bpe_vocab=300: as you set",
    ):
        assert part in reasons
    assert DualCNNConfig.infer(path, tokenizer="byte").vocab_size == 256
    with pytest.raises(UsageError, match="nano exports"):
        DualCNNConfig.infer(path, "4.1MB", tokenizer="byte")  # a larger vocabulary, a larger bundle
    assert DualCNNConfig.infer(path, "4.1MB").vocab_size < 256


def test_infer_measures_time_and_stays_within_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "prose.txt"
    path.write_text(text[:60_000])
    short, long = DualCNNConfig.infer(path, "60s"), DualCNNConfig.infer(path, "600s")
    assert short.training.steps < long.training.steps
    assert any("measured" in reason for reason in short.reasons)
    assert short.training.held_out_tokens < long.training.held_out_tokens
    with pytest.raises(UsageError, match="leaves no time to train nano"):
        DualCNNConfig.infer(path, "0.01s")


@pytest.mark.parametrize(
    ("name", "meant"),
    [("drpout", "did you mean dropout?"), ("training", ""), ("reasons", ""), ("vocab_size", "")],
)
def test_what_is_no_setting_is_refused_with_a_suggestion(name: str, meant: str) -> None:
    """Neither a nested configuration, nor notes, nor what follows from the text can be set."""
    with pytest.raises(ConfigError, match=f"{name}: no such setting") as refused:
        DualCNNConfig().replace_text({name: "9"})
    assert meant in str(refused.value)

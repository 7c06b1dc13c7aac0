"""The shipped models are sound, as small as promised, and match their record."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from rillet.export import verify
from rillet.export.bundle.training_command import command_of_run
from rillet.runtime import load
from rillet.runtime.golden import verify_golden
from rillet.train import PRESETS

MODELS = Path(__file__).parents[2] / "models"
BUNDLES = sorted(path.parent for path in MODELS.glob("*/bundle.json"))
NAMES = [path.name for path in BUNDLES]
NATIVE_ONLY = {"tales-small-int8", "tales-base-int8"}  # models/ has no room for their graphs


def test_all_models_are_shipped() -> None:
    assert {"shakespeare-nano", "shakespeare-nano-int8"} <= set(NAMES)
    assert {"shakespeare-micro-int8", "bible-nano", "bible-nano-int8"} <= set(NAMES)
    assert {"tales-nano-int8", "tales-micro-int8"} | NATIVE_ONLY <= set(NAMES)


def test_the_folder_stays_small() -> None:
    assert sum(file.stat().st_size for file in MODELS.rglob("*") if file.is_file()) < 80e6


@pytest.mark.parametrize("bundle", BUNDLES, ids=NAMES)
def test_golden_tokens(bundle: Path) -> None:
    """Every recorded graph gives PyTorch's greedy tokens."""
    model = load(bundle, self_test=False)
    reports = verify_golden(model)
    assert reports.keys() == {"prefill", "decode"}
    assert {report.greedy for report in reports.values()} == {64}


@pytest.mark.parametrize("bundle", BUNDLES, ids=NAMES)
def test_each_way_of_generating_gives_the_same_text(bundle: Path, tmp_path: Path) -> None:
    """Step by step, in the graph, in a batch, and after save and restore."""
    model = load(bundle, self_test=False)
    options = {"temperature": 0.8, "seed": 11, "max_new_tokens": 150}
    wanted = model.generate("First ", **options)
    assert len(wanted) >= 100
    session = model.session()
    session.feed("First ")
    if bundle.name not in NATIVE_ONLY:
        assert session.fork().generate(in_graph=True, **options) == wanted
    with model.batch() as batch:
        assert batch.generate(["First ", "Second "], **options)[0] == wanted
    stream = session.stream(**options)
    begun = "".join(next(stream) for _ in range(40))
    session.save(tmp_path / "state")
    assert begun + "".join(model.restore(tmp_path / "state").resume()) == wanted


@pytest.mark.parametrize("name", ["shakespeare-nano", "bible-nano"])
def test_parity_with_the_checkpoint(name: str) -> None:
    report = verify(MODELS / name, MODELS / "checkpoints" / name, steps=500)
    assert report.passed, report.table()


@pytest.mark.parametrize("bundle", BUNDLES, ids=NAMES)
def test_the_card_tells_the_origin(bundle: Path) -> None:
    card = (bundle / "README.md").read_text()
    for what in (
        "trained on",
        "rillet train --corpus",
        "--seed 0",
        "with the memory",
        "without it",
    ):
        assert what in card


def test_the_command_of_a_run_gives_its_configuration() -> None:
    """It holds every setting that differs from the preset."""
    config = PRESETS["nano"].replace(hidden=64, dropout=0.0, steps=7, seed=3, tokenizer="byte")
    record = {"corpus": "my notes.txt", "preset": "nano", "config": config.training.to_dict()}
    command = command_of_run(record, config.replace(vocab_size=99).to_dict())
    assert command is not None
    words = shlex.split(command)
    assert words[:6] == ["rillet", "train", "--corpus", "my notes.txt", "--preset", "nano"]
    pairs = [words[at + 1] for at, word in enumerate(words) if word == "--set"]
    changes = dict(pair.split("=", 1) for pair in pairs) | {
        "seed": words[words.index("--seed") + 1]
    }
    assert PRESETS["nano"].replace_text(changes) == config
    assert command_of_run({"preset": "nano"}, {}) is None

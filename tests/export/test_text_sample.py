"""What export and quantization read for their checks: the run's own held-out text."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from rillet.export import export, quantize, verify
from rillet.export.parity.texts import real_text
from rillet.runtime import Bundle, BundleError, load
from rillet.runtime.bundle import checksum
from rillet.runtime.files import sha256_file
from rillet.runtime.golden import verify_golden
from rillet.runtime.text_sample import HELD_OUT, TEXT_SAMPLE_FILE, TRAINING
from rillet.train import (
    Checkpoint,
    DualCNNPipeline,
    load_checkpoint,
    make_tokenizer,
    save_checkpoint,
)
from rillet.train.checkpoint import CHECKPOINT_FILE
from support.cache import Cache
from support.command_line import here
from support.models import SMALL, train_small

QUICK: dict[str, Any] = {"batch": 8, "chunk": 64, "steps": 30, "precision": "fp32"}
CYRILLIC = str.maketrans(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "абцдефгхийклмнопярстужвщызАБЦДЕФГХИЙКЛМНОПЯРСТУЖВЩЫЗ",
)


@pytest.fixture(scope="module")
def cyrillic(text: str) -> str:
    """Words of another alphabet; white space, digits and marks are those of English."""
    return text[:40_000].translate(CYRILLIC)


@pytest.fixture(scope="module")
def chinese() -> str:
    """Lines of characters, 400 of them, with a little order to learn."""
    random = np.random.default_rng(0)
    symbols = [chr(0x4E00 + index * 7) for index in range(400)]
    places = np.cumsum(random.integers(1, 4, 12_000)) % 400
    text = "".join(symbols[place] for place in places)
    lines = (f"{text[at : at + 5]}、{text[at + 5 : at + 10]}。\n" for at in range(0, 12_000, 10))
    return "".join(lines)


@pytest.fixture(scope="module")
def run_of(
    cache: Cache, cyrillic: str, chinese: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Runs on two other alphabets, one with a token per character and one with three."""
    folder = tmp_path_factory.mktemp("alphabets")
    runs = {}
    for name, text in (("cyrillic", cyrillic), ("chinese", chinese)):
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")

        def make(run: Path, corpus: Path = folder / f"{name}.txt") -> None:
            pipeline = DualCNNPipeline.fit_and_initialize(corpus, SMALL, **QUICK)
            pipeline.train(run)

        runs[name] = cache.folder(f"sample-{name}", make, folder / name)
    return runs


@pytest.fixture(scope="module")
def bundle_of(
    run_of: dict[str, Path], cache: Cache, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("alphabet-bundles")
    bundles = {}
    for name, run in run_of.items():

        def make(place: Path, run: Path = run) -> None:
            export(run, place / "bundle", parity_steps=300)

        bundles[name] = cache.folder(f"sample-bundle-{name}", make, folder / name) / "bundle"
    return bundles


def test_a_checkpoint_keeps_some_of_its_held_out_text(
    run_of: dict[str, Path], cyrillic: str, chinese: str, tmp_path: Path
) -> None:
    checkpoint = load_checkpoint(run_of["cyrillic"])
    sample = checkpoint.text_sample
    assert sample is not None
    assert sample.kind == HELD_OUT
    assert checkpoint.tokenizer.decode(sample.tokens.tolist()) == cyrillic[-4_000:]
    other = load_checkpoint(run_of["chinese"])
    assert other.text_sample is not None
    held_out = chinese.encode()[-int(len(chinese.encode()) * 0.1) :]
    tokens = other.text_sample.tokens.tolist()
    assert b"".join(other.tokenizer.token_bytes[token] for token in tokens) == held_out
    # What was loaded is not lost when it is saved.
    DualCNNPipeline.load(run_of["cyrillic"]).save(tmp_path)
    again = load_checkpoint(tmp_path).text_sample
    assert again is not None
    assert again.tokens.tolist() == sample.tokens.tolist()


@pytest.mark.parametrize(
    ("settings", "kind", "length"),
    [
        ({"held_out_sample": 500}, HELD_OUT, 500),
        ({"held_out_sample": 0}, None, 0),
        ({"held_out": 0.0, "held_out_sample": 700}, TRAINING, 700),
    ],
)
def test_the_sample_is_as_long_as_wanted(
    cyrillic: str, settings: dict[str, Any], kind: str | None, length: int, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text(cyrillic[:12_000], encoding="utf-8")
    options = {**QUICK, "steps": 1, **settings}
    DualCNNPipeline.fit_and_initialize(corpus, SMALL, **options).train(tmp_path / "run")
    sample = load_checkpoint(tmp_path / "run").text_sample
    if kind is None:
        assert sample is None
        assert b"text_sample" not in (tmp_path / "run" / CHECKPOINT_FILE).read_bytes()
    else:
        assert sample is not None
        assert (sample.kind, len(sample.tokens)) == (kind, length)


@pytest.mark.parametrize("name", ["cyrillic", "chinese"])
def test_export_and_verify_read_the_held_out_text(
    run_of: dict[str, Path], bundle_of: dict[str, Path], name: str
) -> None:
    bundle, checkpoint = Bundle.open(bundle_of[name]), load_checkpoint(run_of[name])
    assert checkpoint.text_sample is not None
    rows: Any = bundle.manifest["parity"]
    assert {row["text"] for row in rows} == {"held-out text", "random tokens", "its own text"}
    golden: Any = bundle.manifest["golden"]
    assert golden["text"] == "the run's held-out text"
    assert golden["prompt"] == checkpoint.text_sample.tokens[:160].tolist()
    report = verify(bundle, checkpoint, steps=200)
    assert report.passed
    assert "decode   held-out text" in report.table()


@pytest.mark.parametrize("method", ["weight-only", "static"])
@pytest.mark.parametrize("name", ["cyrillic", "chinese"])
def test_a_lower_precision_is_measured_on_the_held_out_text(
    bundle_of: dict[str, Path], run_of: dict[str, Path], name: str, method: str, tmp_path: Path
) -> None:
    bundle = quantize(bundle_of[name], tmp_path / "low", "int8", method=method)
    cost: Any = bundle.manifest["quantization"]
    sample = Bundle.open(bundle_of[name]).text_sample()
    assert sample is not None
    assert cost["text"] == "the run's held-out text"
    assert cost["tokens"] == len(sample.tokens) - len(sample.tokens) // 4 - 1
    assert "the run's held-out text" in (bundle.path / "README.md").read_text()
    # The lowered bundle cannot be lowered again, and goes to devices.
    assert bundle.text_sample() is None
    assert TEXT_SAMPLE_FILE in cost["left_out"]
    assert verify(bundle, run_of[name], steps=200).passed


def test_a_bundle_need_not_carry_the_sample(
    run_of: dict[str, Path], cyrillic: str, tmp_path: Path
) -> None:
    """And then it holds nothing of the text, though the gate has read it."""
    bundle = export(run_of["cyrillic"], tmp_path / "b", parity_steps=100, text_sample=False)
    assert bundle.text_sample() is None
    assert TEXT_SAMPLE_FILE not in {file.name for file in bundle.path.iterdir()}
    manifest: Any = bundle.manifest
    assert manifest["parity"][0]["text"] == "held-out text"
    assert manifest["golden"]["text"] == "a text that the model wrote"
    tokenizer = load(bundle.path).tokenizer
    assert tokenizer.decode(manifest["golden"]["prompt"])[:20] not in cyrillic
    low = export(
        run_of["cyrillic"], tmp_path / "low", precision="int8", parity_steps=100, text_sample=False
    )
    lowered: Any = low.manifest
    assert lowered["quantization"]["text"] == "the run's held-out text"


@pytest.mark.parametrize("name", ["cyrillic", "chinese"])
def test_old_checkpoints_have_no_sample(run_of: dict[str, Path], name: str, tmp_path: Path) -> None:
    """A model that knows little of English writes a text itself; it is not called a reference."""
    checkpoint = load_checkpoint(run_of[name])
    (tmp_path / "run").mkdir()
    old = Checkpoint(checkpoint.model, checkpoint.tokenizer, checkpoint.training)
    save_checkpoint(tmp_path / "run", old)
    bundle = export(tmp_path / "run", tmp_path / "bundle", parity_steps=300)
    verify_golden(load(bundle.path))
    cost: Any = quantize(bundle, tmp_path / "low", "int8").manifest["quantization"]
    if name == "chinese":  # bytes, so that it knows English letters
        assert cost["text"] == "Python's reference texts"
        return
    assert cost["text"] == "a text that the model wrote"
    text = real_text(None, checkpoint.tokenizer, checkpoint.model, 2_000)
    assert (text.name, text.tokens.shape) == ("written text", (2_000,))
    written = checkpoint.tokenizer.decode(text.tokens.tolist())
    letters = sum(not letter.isspace() for letter in written)
    assert letters > len(written) / 2
    repeat = real_text(None, checkpoint.tokenizer, checkpoint.model, 2_000)
    assert repeat.tokens.tolist() == text.tokens.tolist()


def test_the_reference_texts_are_named_for_what_they_are(small: Checkpoint, text: str) -> None:
    whole = real_text(None, make_tokenizer(text), small.model, 500)
    assert (whole.name, whole.description) == ("reference text", "Python's reference texts")
    lower = real_text(None, make_tokenizer("abcdefghijklmnopqrstuvwxyz "), small.model, 500)
    share = lower.description.removeprefix("Python's reference texts (the ")
    assert share.endswith("% of them that the model knows)")
    assert 75 < float(share.split("%")[0]) < 100


def test_a_damaged_sample_is_refused(
    run_of: dict[str, Path], bundle_of: dict[str, Path], tmp_path: Path
) -> None:
    wrong = ({"kind": HELD_OUT, "tokens": [9_999]}, {"kind": HELD_OUT, "tokens": ["a"]}, {})
    source = run_of["cyrillic"] / CHECKPOINT_FILE
    with safe_open(source, "numpy") as file:
        header = json.loads(file.metadata()["rillet"])
    for sample in wrong:
        metadata = {"rillet": json.dumps({**header, "text_sample": sample})}
        save_file(load_file(source), tmp_path / CHECKPOINT_FILE, metadata)
        with pytest.raises(BundleError, match="its text sample"):
            load_checkpoint(tmp_path)
    folder = Path(shutil.copytree(bundle_of["cyrillic"], tmp_path / "bundle"))
    manifest = json.loads((folder / "bundle.json").read_text())
    for sample in wrong:
        (folder / TEXT_SAMPLE_FILE).write_text(json.dumps(sample))
        manifest["files"][TEXT_SAMPLE_FILE] = sha256_file(folder / TEXT_SAMPLE_FILE)
        manifest["checksum"] = checksum(manifest)
        (folder / "bundle.json").write_text(json.dumps(manifest))
        with pytest.raises(BundleError, match="its text sample"):
            quantize(folder, tmp_path / "low", "int8")


def test_score_reads_the_sample_without_a_file(
    bundle_of: dict[str, Path], cyrillic: str, tmp_path: Path
) -> None:
    file = tmp_path / "held_out.txt"
    file.write_text(cyrillic[-4_000:], encoding="utf-8")
    scored = here("score", bundle_of["cyrillic"])
    assert scored.returncode == 0, scored.stderr
    assert "Scoring the run's held-out text." in scored.stderr
    assert scored.stdout == here("score", bundle_of["cyrillic"], file).stdout
    quantize(bundle_of["cyrillic"], tmp_path / "low", "int8")
    refused = here("score", tmp_path / "low")
    assert refused.returncode == 2
    assert "carries no sample of its run's text to score; give a FILE" in refused.stderr


def test_train_small_keeps_none(text: str) -> None:
    assert train_small(SMALL, text[:4_000], steps=1).text_sample is None

"""The model in a bundle is a checkpoint: it can be exported and trained further."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch

from rillet.export import export, quantize
from rillet.export.bundle.folder import write_manifest
from rillet.runtime import Bundle, BundleError, UsageError
from rillet.runtime.bundle import WEIGHTS_FILE, WEIGHTS_FORMAT
from rillet.runtime.files import sha256_file
from rillet.train import Checkpoint, load_checkpoint
from rillet.train.checkpoint import weights_sha256
from support.command_line import here


@pytest.fixture(scope="module")
def lowered(small_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lowered") / "int8"
    return quantize(small_bundle, folder, "int8", max_loss_rise=1).path


def int8_tensors(bundle: Path) -> dict[str, torch.Tensor]:
    return WEIGHTS_FORMAT.read(bundle / WEIGHTS_FILE, "pt")[1]


def test_a_bundle_in_float32_holds_the_checkpoint(small: Checkpoint, small_bundle: Path) -> None:
    restored = load_checkpoint(small_bundle)
    assert weights_sha256(restored.model) == weights_sha256(small.model)
    assert restored.model.config == small.model.config
    assert restored.tokenizer.source == small.tokenizer.source
    assert restored.training["bundle"]["name"] == "small"


def test_int8_is_what_it_stands_for_and_lowers_to_itself(lowered: Path, tmp_path: Path) -> None:
    restored = load_checkpoint(lowered)
    stored = int8_tensors(lowered)
    name = "wave_cnn.emit.weight"
    expected = stored[name].float() * stored[f"{name}_scale"][:, None]
    assert torch.equal(restored.model.state_dict()[name], expected)
    export(restored, tmp_path / "again", precision="int8", native_only=True, max_loss_rise=1)
    again = int8_tensors(tmp_path / "again")
    assert again.keys() == stored.keys()
    for name, tensor in stored.items():
        if tensor.dtype == torch.int8:
            assert torch.equal(again[name], tensor), name
        else:
            torch.testing.assert_close(again[name], tensor, rtol=1e-6, atol=0)


def test_a_precision_that_only_graphs_hold_is_refused(small_bundle: Path, tmp_path: Path) -> None:
    quantize(small_bundle, tmp_path / "int4", "int4", max_loss_rise=9)
    with pytest.raises(BundleError, match="give the run"):
        load_checkpoint(tmp_path / "int4")


@pytest.mark.parametrize("scale", [torch.ones(3), torch.ones(2, 2), torch.tensor(1.0)])
def test_a_scale_that_does_not_fit_is_refused(
    lowered: Path, tmp_path: Path, scale: torch.Tensor
) -> None:
    forged = tmp_path / "forged"
    shutil.copytree(lowered, forged)
    header, tensors = WEIGHTS_FORMAT.read(forged / WEIGHTS_FILE, "pt")
    tensors["wave_cnn.emit.weight_scale"] = scale
    metadata = WEIGHTS_FORMAT.metadata({"model": header["model"]})
    (forged / WEIGHTS_FILE).write_bytes(safetensors.torch.save(tensors, metadata))
    manifest = dict(Bundle.open(lowered).manifest)
    del manifest["checksum"]
    manifest["files"] = {**manifest["files"], WEIGHTS_FILE: sha256_file(forged / WEIGHTS_FILE)}
    write_manifest(forged, manifest)
    with pytest.raises(BundleError, match="does not fit"):
        load_checkpoint(forged)


def test_what_it_was_taught_stays_behind(taught_bundle: Path, tmp_path: Path) -> None:
    bundle = export(taught_bundle, tmp_path / "untaught", parity_steps=60, native_only=True)
    assert bundle.start_state() is None
    whole = Bundle.open(taught_bundle)
    assert bundle.manifest["model"]["memory"] == whole.manifest["model"]["memory"]


def test_an_export_keeps_the_default_sampling(small: Checkpoint, tmp_path: Path) -> None:
    options = {"parity_steps": 60, "native_only": True}
    export(small, tmp_path / "a", top_p=0.9, min_p=0.1, **options)
    for source in (tmp_path / "a", load_checkpoint(tmp_path / "a")):
        again = export(source, tmp_path / "b", min_p=0.2, **options).generation_defaults()
        assert (again["temperature"], again["top_p"], again["min_p"]) == (0.8, 0.9, 0.2)


def test_commands_export_and_continue(lowered: Path, text: str, tmp_path: Path) -> None:
    done = here("export", lowered, "--parity-steps", "100", "--out", tmp_path / "graphs")
    assert done.returncode == 0, done.stderr
    card = (tmp_path / "graphs" / "README.md").read_text()
    assert f"rillet export {lowered.name} --parity-steps 100 --out graphs" in card
    assert "rillet quantize FLOAT32 --precision int8" in card
    (tmp_path / "notes.txt").write_text(text[:20_000], encoding="utf-8")
    run = tmp_path / "run"
    options = ("--steps", "2", "--no-plot", "--out", run)
    done = here("train", "--continue-from", lowered, "--corpus", tmp_path / "notes.txt", *options)
    assert done.returncode == 0, done.stderr
    assert load_checkpoint(run).training["continued_from"]["bundle"]["precision"] == "int8"


def test_a_bundle_is_not_exported_onto_itself(lowered: Path) -> None:
    before = {file.name: file.read_bytes() for file in lowered.iterdir()}
    with pytest.raises(UsageError, match="would be lost"):
        export(lowered, lowered)
    assert {file.name: file.read_bytes() for file in lowered.iterdir()} == before


def test_a_folder_with_neither_says_both(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="or a bundle"):
        load_checkpoint(tmp_path)

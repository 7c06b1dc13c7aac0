"""Bundles that are missing, damaged, tampered with, or in a newer format are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from rillet.export.bundle.writer import write_bundle
from rillet.runtime import Bundle, BundleError, ParityError, UsageError, load
from rillet.runtime.bundle import checksum
from rillet.runtime.files import sha256_file
from rillet.runtime.golden import verify_golden
from rillet.train import Checkpoint

FILES = [
    "decode.onnx",
    "prefill.onnx",
    "generate.onnx",
    "tokenizer.json",
    "generation_config.json",
    "weights.safetensors",
]


@pytest.fixture
def bundle(small_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_bundle, tmp_path / "copy"))


def rewrite(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest and correct its checksum, as a careful forger would."""
    path = bundle / "bundle.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    manifest["checksum"] = checksum(manifest)
    path.write_text(json.dumps(manifest))


def test_a_bundle_opens_and_matches_its_golden_record(bundle: Path) -> None:
    assert set(Bundle.open(bundle).hashes()) == set(FILES)
    for report in verify_golden(load(bundle)).values():
        assert report.logits <= 1e-4
        assert max(report.state.values()) <= 1e-4
        assert report.greedy == 64


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            lambda golden: golden["greedy"].reverse(),
            ParityError,
            "greedy decoding differs from PyTorch's",
        ),
        (
            lambda golden: golden["prompt"].reverse(),
            ParityError,
            "the prefill graph's .* differs from PyTorch's record",
        ),
        (
            lambda golden: golden["steps"][1]["state"]["wave_buffer"]["values"][0].insert(1, 0.5),
            BundleError,
            "no valid golden record",
        ),
        (
            lambda golden: golden["steps"][2]["state"]["wave_buffer"]["values"][0].__setitem__(
                1, 9
            ),
            ParityError,
            "state tensor wave_buffer at step 40 differs from PyTorch's record",
        ),
        (
            lambda golden: golden["steps"][3]["state"]["memory_tokens"].update(sha256="0" * 64),
            ParityError,
            "state tensor memory_tokens",
        ),
        (
            lambda golden: golden["steps"][0]["state"]["reservoir"]["values"][0].__setitem__(
                0, 999
            ),
            BundleError,
            "no valid golden record",
        ),
        (lambda golden: golden["steps"].reverse(), BundleError, "no valid golden record"),
        (lambda golden: golden["prompt"].append(9_999), BundleError, "no valid golden record"),
        (lambda golden: golden.pop("greedy"), BundleError, "no valid golden record"),
    ],
)
def test_verify_golden_detects_a_changed_record(
    bundle: Path,
    change: Callable[[dict[str, Any]], object],
    error: type[Exception],
    message: str,
) -> None:
    rewrite(bundle, lambda manifest: change(manifest["golden"]))
    with pytest.raises(error, match=message):
        verify_golden(load(bundle, self_test=False))


@pytest.mark.parametrize("name", [*FILES, "bundle.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "empty"])
def test_a_damaged_file_is_refused(bundle: Path, name: str, damage: str) -> None:
    path = bundle / name
    data = bytearray(path.read_bytes())
    if damage == "remove":
        path.unlink()
    else:
        data[len(data) // 2] ^= 1
        damaged = {"flip": data, "truncate": data[: len(data) // 2], "empty": b""}[damage]
        path.write_bytes(damaged)
    with pytest.raises(BundleError, match=name.replace(".", r"\.")):
        load(bundle)


def test_swapped_files_are_refused(bundle: Path) -> None:
    other = (bundle / "prefill.onnx").read_bytes()
    (bundle / "decode.onnx").rename(bundle / "prefill.onnx")
    (bundle / "decode.onnx").write_bytes(other)
    with pytest.raises(BundleError, match="damaged or was changed"):
        load(bundle)


def test_a_graph_that_does_not_match_the_state_table_is_refused(bundle: Path) -> None:
    """Even if all hashes are correct."""

    def change(manifest: dict[str, Any]) -> None:
        manifest["state"] = manifest["state"][1:]

    rewrite(bundle, change)
    with pytest.raises(BundleError, match=r"past\.reservoir"):
        load(bundle).generate("The", max_new_tokens=1)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[" * 100_000, "state table is not JSON"),
        ("[]", "state table is empty"),
        ('[{"name": 1}]', "state table is invalid"),
        ("\xf6" * 3, "are not valid text"),
    ],
    ids=["deep", "empty", "other", "not UTF-8"],
)
def test_invalid_graph_properties_are_refused(bundle: Path, value: str, message: str) -> None:
    path = bundle / "decode.onnx"
    graph = onnx.load(path)
    for entry in graph.metadata_props:
        if entry.key == "rillet.state":
            entry.value = value
    content = graph.SerializeToString()
    # protobuf writes "ö" as two bytes of UTF-8; one of them alone is not valid.
    path.write_bytes(content.replace(b"\xc3\xb6" * 3, b"\xf6a" * 3))
    rewrite(bundle, lambda manifest: manifest["graphs"]["decode"].update(sha256=sha256_file(path)))
    with pytest.raises(BundleError, match=message):
        load(bundle, "cpu")


@pytest.mark.parametrize("graph", ["decode", "prefill", "generate"])
@pytest.mark.parametrize("where", ["/etc/passwd", "../secret", "weights.bin"])
def test_weights_in_external_files_are_refused(bundle: Path, graph: str, where: str) -> None:
    """onnxruntime 1.23, the last version for Python 3.10, reads whatever file a graph names."""
    path = bundle / f"{graph}.onnx"
    model = onnx.load(path)
    inner = model.graph
    if graph == "generate":  # inside the loop's body
        body = next(node for node in inner.node if node.op_type == "Loop").attribute[0].g
        inner = body if body.initializer else inner
    tensor = max(inner.initializer, key=lambda tensor: len(tensor.raw_data))
    size = len(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", where), ("offset", "0"), ("length", str(size))):
        tensor.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    rewrite(bundle, lambda manifest: manifest["graphs"][graph].update(sha256=sha256_file(path)))
    for folder in (bundle, bundle.parent):
        (folder / ("secret" if folder == bundle.parent else "weights.bin")).write_bytes(bytes(size))
    with pytest.raises(BundleError, match="stores weights in external files"):
        load(bundle)


@pytest.mark.parametrize(
    "name", ["../outside.onnx", "/etc/passwd", "sub/decode.onnx", "..", ".", "", "a\\b", "a\0b"]
)
def test_a_path_outside_the_folder_is_refused(bundle: Path, name: str) -> None:
    (bundle.parent / "outside.onnx").write_bytes((bundle / "decode.onnx").read_bytes())
    rewrite(bundle, lambda manifest: manifest["graphs"]["decode"].update(file=name))
    with pytest.raises(BundleError, match="not a regular file in the folder"):
        load(bundle)


@pytest.mark.parametrize("name", ["decode.onnx", "bundle.json"])
def test_symbolic_links_are_refused_by_that_name(bundle: Path, name: str) -> None:
    (bundle / name).rename(bundle.parent / name)
    (bundle / name).symlink_to(bundle.parent / name)
    with pytest.raises(BundleError, match=rf"{name} is a link, and .*: cp -rL"):
        load(bundle)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format_version="2.0"), "format version 2.0.*newer rillet"),
        (lambda m: m.update(format="other"), "not the manifest of a rillet bundle"),
        (lambda m: m.update(state=[]), "state table is empty"),
        (lambda m: m["state"][0].update(dtype="object"), "unknown type 'object'"),
        (lambda m: m["state"][0].update(shape=["batch", -1]), "invalid row"),
        (lambda m: m.update(state=7), "state table is invalid"),
        (lambda m: m.update(graphs=[]), "lists no graphs"),
        (lambda m: m["graphs"].pop("prefill"), "no prefill graph"),
        (lambda m: m.update(model={}), "no vocabulary size"),
        (lambda m: m["model"].update(vocab_size=7), "the tokenizer has"),
        (lambda m: m["files"].pop("tokenizer.json"), "no graphs or no tokenizer"),
    ],
)
def test_an_inconsistent_manifest_is_refused(
    bundle: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    rewrite(bundle, change)
    with pytest.raises(BundleError, match=message):
        load(bundle, "cpu")


@pytest.mark.parametrize("content", ["", "[]", "{", "null", "\udcff", '{"a":' * 5000])
def test_a_manifest_that_is_not_a_json_object_is_refused(bundle: Path, content: str) -> None:
    (bundle / "bundle.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(BundleError, match=r"cannot be read as JSON|is not a JSON object"):
        load(bundle)


def test_an_oversized_manifest_is_refused(bundle: Path) -> None:
    with (bundle / "bundle.json").open("ab") as file:
        file.truncate(16 * 1024 * 1024 + 1)
    with pytest.raises(BundleError, match="has 16,777,217 bytes, and rillet writes at most"):
        load(bundle)


def test_a_folder_without_a_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not a folder"):
        load(tmp_path / "none")
    with pytest.raises(BundleError, match=r"not a bundle: it has no bundle\.json"):
        load(tmp_path)


def test_loading_with_no_threads_is_refused(small_bundle: Path) -> None:
    with pytest.raises(UsageError, match="threads is 0"):
        load(small_bundle, threads=0)


def test_export_replaces_only_a_bundle(small: Checkpoint, bundle: Path) -> None:
    (bundle / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"contains other files \(notes.txt\)"):
        write_bundle(small, bundle, steps=10)
    (bundle / "notes.txt").unlink()
    (bundle / "bundle.json").unlink()
    with pytest.raises(UsageError, match="is not a bundle"):
        write_bundle(small, bundle, steps=10)
    file = bundle.parent / "file"
    file.write_text("mine")
    with pytest.raises(UsageError, match="is not a folder"):
        write_bundle(small, file, steps=10)
    assert file.read_text() == "mine"

"""decode.onnx driven from another language by its documented contract: examples/javascript."""

from __future__ import annotations

import json
import shutil
import subprocess
from contextlib import nullcontext
from pathlib import Path

import pytest

from rillet.runtime import Model, load
from rillet.train import builtin_corpus, make_tokenizer

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "javascript"
BUNDLES = sorted(path.parent for path in (ROOT / "models").glob("*/decode.onnx"))


@pytest.fixture(scope="module")
def plain_node() -> str:
    """The node interpreter."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("there is no node on this machine")
    return found


@pytest.fixture(scope="module")
def node(plain_node: str) -> str:
    """The node interpreter, if it finds onnxruntime-node."""
    probe = [plain_node, "-e", "require('onnxruntime-node')"]
    if subprocess.run(probe, cwd=EXAMPLE, capture_output=True, check=False).returncode:
        pytest.skip("onnxruntime-node is not installed: make javascript")
    return plain_node


def run(node: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [node, "generate.js", *map(str, arguments)]
    return subprocess.run(command, cwd=EXAMPLE, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
def test_golden_tokens(node: str, bundle: Path) -> None:
    result = run(node, bundle, "--golden")
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout == "64 greedy tokens match PyTorch's\n"


def test_a_taught_bundle_begins_with_its_table(node: str, taught_bundle: Path) -> None:
    result = run(node, taught_bundle, "--golden")
    assert result.stdout == "64 greedy tokens match PyTorch's\n", result.stderr
    result = run(node, taught_bundle, "The", 40, 0)
    wanted = load(taught_bundle).generate("The", max_new_tokens=40, temperature=0)
    assert result.stdout == f"The{wanted}\n"


def test_it_writes(node: str) -> None:
    result = run(node, ROOT / "models" / "shakespeare-nano", "ROMEO:", 80)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("ROMEO:")
    assert len(result.stdout) == len("ROMEO:") + 80 + 1


def test_a_bundle_without_graphs_is_refused(node: str) -> None:
    result = run(node, ROOT / "models" / "tales-small-int8", "Once")
    assert result.returncode == 1
    assert result.stderr.endswith("tales-small-int8 has no graphs; export one with them\n")


@pytest.mark.parametrize("bundle", ["shakespeare-nano", "bible-nano"])
def test_it_writes_what_python_writes(node: str, bundle: str) -> None:
    """Characters and bytes; a character without a token is left out, and said to be."""
    folder, prompt = ROOT / "models" / bundle, "And the 水 é said"
    result = run(node, folder, prompt, 40, 0)
    some_unknown = bundle == "shakespeare-nano"
    with pytest.warns(UserWarning, match="'水', 'é'") if some_unknown else nullcontext():
        wanted = load(folder).generate(prompt, max_new_tokens=40, temperature=0)
    assert result.stdout == f"{prompt}{wanted}\n"
    noted = "left out, since the model has never seen them: 水 é\n"
    assert result.stderr == (noted if some_unknown else "")


def test_a_prompt_without_a_token(node: str) -> None:
    folder = ROOT / "models" / "shakespeare-nano"
    result = run(node, folder, "水", 40, 0)
    assert result.stdout == f"水{load(folder).generate('', max_new_tokens=40, temperature=0)}\n"


def test_a_character_of_several_tokens(node: str, byte_model: Model) -> None:
    result = run(node, byte_model.bundle.path, "éa", 60, 0)
    wanted = byte_model.generate("éa", max_new_tokens=60, temperature=0)
    assert result.stdout == f"éa{wanted}\n"


TEXTS = (
    "",
    "It's 5 o'clock -- don't   stop,\n\n  he'll say 12,345 x!",
    "naïve café \u00a0 ½ Ⅷ 水火 😀 \ufeff\x85end  ",
    "Ġ is a letter, and \x00\x7f\xad are bytes",
    "undefined x undefined",
    builtin_corpus()[:3_000],
)


@pytest.mark.parametrize("kind", ["char", "byte", "bpe"])
def test_the_tokenizer_is_pythons(plain_node: str, kind: str, tmp_path: Path) -> None:
    """The same tokens, the same characters left out, and the same text after each token."""
    corpus = builtin_corpus()[:20_000] + "x undefined " * 20 + "naïve café 水火 😀 " * 5
    tokenizer = make_tokenizer(corpus, kind, 600 if kind == "bpe" else None)
    (tmp_path / "tokenizer.json").write_text(tokenizer.source, encoding="utf-8")
    (tmp_path / "texts.json").write_text(json.dumps(TEXTS), encoding="utf-8")
    script = """
        const { Tokenizer } = require("./tokenizer.js");
        const [file, texts] = process.argv.slice(1);
        const tokenizer = new Tokenizer(file);
        console.log(JSON.stringify(require(texts).map((text) => {
          const { tokens, unknown } = tokenizer.encode(text);
          return { tokens, unknown, pieces: tokens.map(tokenizer.decoder()) };
        })));
    """
    command = [plain_node, "-e", script, tmp_path / "tokenizer.json", tmp_path / "texts.json"]
    result = subprocess.run(command, cwd=EXAMPLE, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    for text, row in zip(TEXTS, json.loads(result.stdout), strict=True):
        tokens, decoder = tokenizer.encode(text), tokenizer.decoder()
        assert row["tokens"] == tokens
        assert row["unknown"] == tokenizer.unknown(text)
        assert row["pieces"] == [decoder.push(token) for token in tokens]


def test_another_kind_of_tokenizer_is_refused(plain_node: str, tmp_path: Path) -> None:
    other = tmp_path / "tokenizer.json"
    other.write_text('{"model": {"type": "WordPiece", "vocab": {}}}')
    script = "new (require('./tokenizer.js').Tokenizer)(process.argv[1])"
    command = [plain_node, "-e", script, other]
    result = subprocess.run(command, cwd=EXAMPLE, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "is not a tokenizer of characters, bytes or byte pairs" in result.stderr

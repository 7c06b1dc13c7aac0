"""llguidance's own JSON-schema cases: what is written under each is what jsonschema accepts.

They come from its source distribution, fetched by version and hash. That of lm-format-enforcer
holds no tests; ``support.schemas`` has what those are about.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rillet.runtime import Model, UsageError, load

pytest.importorskip("llguidance", reason="llguidance is not installed: pip install rillet[grammar]")
jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")

pytestmark = pytest.mark.slow

SOURCE = (
    "https://files.pythonhosted.org/packages/1e/2e/"
    "3b0e13c1e01d5598708a6e7b77c55f3ae9c6c4e242a50a239f03ee800630/llguidance-1.9.1.tar.gz"
)
SHA256 = "3ba1b37585d07f50bb73e06dca6d45c88c9d5801789c071c8ff784c9dbcc5c46"
FILES = {
    "arrays": (5, 1),
    "enum_const": (6, 0),
    "objects": (6, 0),
    "primitives": (24, 2),
    "schema_combinations": (14, 1),
    "string_format": (25, 0),
}
"""Files of tests, with how many of their schemas are kept to, and how many nothing can keep to.
Another file is about a keyword that is llguidance's own."""

MODELS = Path(__file__).parents[2] / "models"


@pytest.fixture(scope="module")
def bible() -> Model:
    return load(MODELS / "bible-nano", self_test=False)


@pytest.fixture(scope="module")
def sources() -> dict[str, str]:
    """The files of tests."""
    try:
        with urllib.request.urlopen(SOURCE, timeout=60) as answer:
            data = answer.read()
    except OSError as error:
        pytest.skip(f"llguidance's sources cannot be fetched: {error}")
    assert hashlib.sha256(data).hexdigest() == SHA256
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        found = {}
        for name in FILES:
            file = archive.extractfile(f"llguidance-1.9.1/parser/tests/test_json_{name}.rs")
            assert file is not None
            found[name] = file.read().decode()
    return found


def schemas(source: str) -> Iterator[Any]:
    """What a file of Rust names a schema: ``static ref X: Value = json!(…)`` and ``schema = …``."""
    for match in re.finditer(r"(?:(?:: Value|schema) =|json_err_test\()\s*&?json!\(", source):
        text = source[match.end() :]
        text = re.sub(r",(\s*[}\]])", r"\1", text)  # Rust allows a comma at the end
        try:
            yield json.JSONDecoder().raw_decode(text.lstrip())[0]
        except json.JSONDecodeError:
            continue  # made of variables


def check(schema: Any, text: str) -> None:
    kind = jsonschema.validators.validator_for(schema, jsonschema.Draft202012Validator)
    kind(schema, format_checker=kind.FORMAT_CHECKER).validate(json.loads(text))


@pytest.mark.parametrize("name", FILES)
def test_its_schemas_are_kept_to(bible: Model, sources: dict[str, str], name: str) -> None:
    kept, refused = 0, 0
    for schema in schemas(sources[name]):
        for temperature, limit in ((0, 160), (1.0, 300)):
            how = {"temperature": temperature, "max_new_tokens": limit, "seed": limit}
            try:
                text = bible.generate("And he said ", json_schema=schema, **how)
            except UsageError as error:
                refused += "which is not valid" in str(error)
                break
            check(schema, text)
        else:
            kept += 1
    assert (kept, refused) == FILES[name]

"""JSON schemas: what is written keeps to them, whole and in time; what cannot is refused."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save

from rillet.runtime import Model, SamplingParams, StateError, UsageError, load
from rillet.runtime.streams.saved_state import checksum
from support.command_line import here
from support.schemas import KEPT, REFUSED

pytest.importorskip("llguidance", reason="llguidance is not installed: pip install rillet[grammar]")
jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")

MODELS = Path(__file__).parents[2] / "models"
PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"type": "string"}},
        "child": {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
    },
    "required": ["name", "age", "tags", "child"],
    "additionalProperties": False,
}
SHORTEST = len('{"name": "", "age": 0, "tags": [], "child": null}')


@pytest.fixture(scope="module")
def bible() -> Model:
    return load(MODELS / "bible-nano", self_test=False)


@pytest.fixture(scope="module")
def shakespeare() -> Model:
    return load(MODELS / "shakespeare-nano", self_test=False)


def check(schema: dict[str, Any] | bool, text: str) -> Any:
    """Refuse a text that is not one document that a schema accepts, in Python's own form."""
    document = json.loads(text)
    kind = jsonschema.validators.validator_for(schema, jsonschema.Draft202012Validator)
    kind(schema, format_checker=kind.FORMAT_CHECKER).validate(document)
    return document


@pytest.mark.parametrize("name", KEPT)
def test_a_document_keeps_to_its_schema(bible: Model, name: str) -> None:
    """Greedy, likely and wild, with room and without."""
    schema = KEPT[name]
    for temperature, limit in ((0, 120), (0.8, 300), (5.0, 90), (1.0, 70)):
        stream = bible.stream(
            "And he said ",
            json_schema=schema,
            temperature=temperature,
            max_new_tokens=limit,
            seed=limit,
        )
        text = "".join(stream)
        check(schema, text)
        assert stream.finish_reason == "grammar"
        assert stream.stats.tokens <= limit


@pytest.mark.parametrize("name", REFUSED)
def test_a_schema_that_cannot_be_kept_to_is_refused(bible: Model, name: str) -> None:
    schema, reason = REFUSED[name]
    session = bible.session()
    session.feed("And ")
    began = time.monotonic()
    with pytest.raises(UsageError, match=reason):
        session.generate(json_schema=schema)
    assert time.monotonic() - began < 20
    assert session.position == 4


@given(limit=st.integers(SHORTEST, SHORTEST + 60), seed=st.integers(0, 99))
def test_a_document_ends_within_any_limit(bible: Model, limit: int, seed: int) -> None:
    text = bible.generate("x", json_schema=PERSON, max_new_tokens=limit, seed=seed, temperature=1.5)
    check(PERSON, text)
    assert len(text.encode()) <= limit


def test_too_small_a_limit_says_what_it_takes(bible: Model) -> None:
    with pytest.raises(UsageError, match=f"takes at least {SHORTEST} tokens .* is {SHORTEST - 1}"):
        bible.generate("x", json_schema=PERSON, max_new_tokens=SHORTEST - 1)


_names = st.sampled_from(["a", "b", 'q"', "é"])
_schemas = st.recursive(
    st.sampled_from(
        [
            {"type": "integer"},
            {"type": "number", "minimum": 0.5},
            {"type": "string"},
            {"type": "string", "minLength": 2, "maxLength": 6},
            {"type": "string", "pattern": "^[a-c]+x$"},
            {"enum": ["a", 10, 1, None]},
            {"type": "boolean"},
        ]
    ),
    lambda inner: st.one_of(
        st.builds(
            lambda items, least: {"type": "array", "items": items, "minItems": least},
            inner,
            st.integers(0, 3),
        ),
        st.builds(
            lambda properties, required: {
                "type": "object",
                "properties": properties,
                "required": [name for name in properties if name in required],
                "additionalProperties": False,
            },
            st.dictionaries(_names, inner, max_size=3),
            st.sets(_names),
        ),
        st.lists(inner, min_size=1, max_size=3).map(lambda options: {"anyOf": options}),
    ),
    max_leaves=6,
)


@given(schema=_schemas, seed=st.integers(0, 99), limit=st.integers(1, 120))
def test_any_schema_is_kept_to_or_refused(
    bible: Model, schema: dict[str, Any], seed: int, limit: int
) -> None:
    options = {"json_schema": schema, "seed": seed, "max_new_tokens": limit, "temperature": 2.0}
    try:
        text = bible.generate("x", **options)
    except UsageError as error:
        assert "takes at least" in str(error)  # noqa: PT017
        return
    check(schema, text)


def test_blanks_are_bounded(bible: Model) -> None:
    """A model that wants nothing but blanks gets those that json.dumps writes, and no others."""
    text = bible.generate(
        "x",
        json_schema={"type": "array", "items": {"type": "integer"}, "minItems": 3, "maxItems": 3},
        logit_bias={" ": 50.0, "\n": 50.0, "\t": 50.0},
        seed=1,
    )
    assert text == json.dumps(json.loads(text))


def test_a_number_alone_ends(bible: Model) -> None:
    for seed in range(10):
        text = bible.generate("x", json_schema={"type": "integer"}, seed=seed, max_new_tokens=9)
        assert json.loads(text) == int(text)
        assert len(text) == 9 or text[-1] in " \n"


def test_a_schema_may_be_text_a_file_or_a_dictionary(bible: Model, tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(PERSON))
    texts = {
        bible.generate("x", json_schema=schema, seed=1)
        for schema in (PERSON, json.dumps(PERSON), file)
    }
    assert len(texts) == 1
    with pytest.raises(UsageError, match="which cannot be read"):
        bible.generate("x", json_schema=tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"no JSON: .* for a file, give a pathlib\.Path"):
        bible.generate("x", json_schema=str(file))


@pytest.mark.parametrize(
    "schema",
    [3, [], b"{}", {1: {2}}, "[" * 10_000, "{" * 10_000, '{"a":' * 500 + "1" + "}" * 500, "\0"],
    ids=repr,
)
def test_no_schema_at_all_is_refused(bible: Model, schema: Any) -> None:
    with pytest.raises(UsageError, match="json_schema"):
        bible.generate("x", json_schema=schema)


def test_a_schema_of_hostile_size_is_refused(bible: Model, tmp_path: Path) -> None:
    large = {"enum": ["x" * 1_000 for _ in range(1_100)]}
    (tmp_path / "large").write_text(json.dumps(large))
    for schema in (large, json.dumps(large), tmp_path / "large"):
        with pytest.raises(UsageError, match="it may have at most 1,048,576"):
            bible.generate("x", json_schema=schema)
    endless = Path("/dev/zero")
    if endless.exists():
        with pytest.raises(UsageError, match="it may have at most"):
            bible.generate("x", json_schema=endless)


def test_what_a_model_of_characters_lacks_is_named(shakespeare: Model) -> None:
    """Before anything is drawn; what needs no such character is written."""
    session = shakespeare.session()
    session.feed("ROMEO:")
    with pytest.raises(UsageError, match=r'lacks characters that they need, such as " \{ \}'):
        session.generate(json_schema=PERSON)
    assert session.position == 6
    schema = {"enum": [True, None, "never"]}
    check(schema, session.generate(json_schema=schema, seed=1))


def test_bad_words_and_forbidden_tokens_are_kept_out(bible: Model) -> None:
    schema = {"type": "array", "items": {"enum": ["the", "a"]}, "minItems": 2, "maxItems": 4}
    for seed in range(5):
        text = bible.generate("x", json_schema=schema, bad_words=["the"], seed=seed)
        assert set(check(schema, text)) == {"a"}
        text = bible.generate("x", json_schema=schema, logit_bias={"a": float("-inf")}, seed=seed)
        assert set(check(schema, text)) == {"the"}


def test_a_saved_document_continues(bible: Model, tmp_path: Path) -> None:
    """In a file, in a fork and after a rollback: the limit and the known end are part of it."""
    options = {"json_schema": PERSON, "seed": 5, "max_new_tokens": 90, "temperature": 1.2}
    whole = bible.generate("x", **options)
    for cut in (1, 20, 60, 80):
        session = bible.session()
        session.feed("x")
        tokens = session.tokens(**options)
        begun = b"".join(next(tokens).data for _ in range(cut))
        session.save(tmp_path / "state")
        mark = session.checkpoint()
        for later in (bible.restore(tmp_path / "state"), session.fork()):
            assert begun + b"".join(later.resume().as_bytes()) == whole.encode()
        list(tokens)
        session.rollback(mark)
        assert begun + b"".join(session.resume().as_bytes()) == whole.encode()


def test_a_lowered_limit_is_said_to_cut(bible: Model) -> None:
    session = bible.session()
    session.feed("x")
    tokens = session.tokens(json_schema=PERSON, seed=5, max_new_tokens=90)
    begun = b"".join(next(tokens).data for _ in range(5))
    rest = session.resume(10)
    begun += b"".join(rest.as_bytes())
    assert (rest.finish_reason, len(begun)) == ("length", 15)
    # With room again, it becomes whole.
    last = session.resume(200)
    check(PERSON, (begun + b"".join(last.as_bytes())).decode())
    assert last.finish_reason == "grammar"


def test_a_saved_schema_is_no_path(bible: Model, tmp_path: Path) -> None:
    """A stranger's file makes us read no other file."""
    session = bible.session()
    next(session.tokens(json_schema=PERSON, seed=5))
    session.save(tmp_path / "state")
    with safe_open(tmp_path / "state", framework="numpy") as file:
        header = json.loads(file.metadata()["rillet"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    header["generation"]["params"]["json_schema"] = "/etc/hosts"
    header["checksum"] = checksum(header, tensors)
    (tmp_path / "state").write_bytes(save(tensors, {"rillet": json.dumps(header)}))
    with pytest.raises(StateError, match="no JSON"):
        bible.restore(tmp_path / "state")


def test_documents_in_a_batch(bible: Model) -> None:
    options = {"json_schema": PERSON, "max_new_tokens": 80, "temperature": 1.0}
    with bible.batch() as batch:
        texts = batch.generate(["a", "b", "c"], seed=3, **options)
    for index, (prompt, text) in enumerate(zip("abc", texts, strict=True)):
        check(PERSON, text)
        assert text == bible.generate(prompt, seed=3 + index, **options)


def test_on_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(PERSON))

    def run(model: str, *options: object) -> Any:
        return here("generate", MODELS / model, "x", "--no-echo", "--seed", 2, *options)

    result = run("bible-nano", "--json-schema", file)
    check(PERSON, result.stdout)
    result = run("bible-nano", "--json-schema", file, "--json")
    assert json.loads(result.stdout)["finish_reason"] == "grammar"
    for model, options, message in (
        ("shakespeare-nano", (), "this model lacks characters"),
        ("bible-nano", ("--max-new-tokens", 10), "takes at least"),
        ("bible-nano", ("--regex", "a"), "give only one of them"),
    ):
        result = run(model, "--json-schema", file, *options)
        assert result.returncode == 2
        assert message in result.stderr
        assert "Traceback" not in result.stderr


def test_patterns_of_schemas_are_ascii(bible: Model) -> None:
    """ECMA's \\d is, whatever Rust's and Python's are."""
    schema = {"type": "string", "pattern": "^\\d{4}$"}
    for seed in range(5):
        text = bible.generate("x", json_schema=schema, temperature=9.0, seed=seed)
        assert json.loads(text).isascii()


def test_equal_schemas_make_equal_parameters() -> None:
    params = [SamplingParams(json_schema=s, seed=1) for s in ({"type": "null"}, '{"type": "null"}')]
    assert params[0] == params[1]
    assert hash(params[0]) == hash(params[1])

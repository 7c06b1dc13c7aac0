"""A byte tokenizer reads and writes any bytes; other tokenizers refuse what is not UTF-8."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from rillet.runtime import Model, UsageError
from rillet.runtime.tokenizer import Tokenizer, text_bytes
from rillet.train import make_tokenizer
from support.command_line import RILLET, here

DATA = bytes(range(256)) * 3 + "水 and é".encode() + b"\xe6\xb0"


def as_text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


@given(data=st.binary(max_size=300), cut=st.integers(0, 300))
def test_bytes_are_tokens_and_tokens_bytes(data: bytes, cut: int) -> None:
    tokenizer = make_tokenizer("any", "byte")
    tokens = tokenizer.encode(as_text(data))
    assert b"".join(tokenizer.token_bytes[token] for token in tokens) == data
    pieces = [as_text(data)[:cut], as_text(data)[cut:]]
    assert [token for part in tokenizer.encode_stream(pieces) for token in part] == tokens
    assert tokenizer.unknown(as_text(data)) == []
    decoder = tokenizer.decoder(exact=True)
    written = "".join(map(decoder.push, tokens))
    assert text_bytes(written) + decoder.pending == data
    shown = tokenizer.decoder()
    assert "".join(map(shown.push, tokens)) == data[: len(data) - len(shown.pending)].decode(
        "utf-8", "replace"
    )


@given(text=st.text(max_size=100))
def test_valid_text_has_the_tokens_of_the_library(text: str) -> None:
    tokenizer = make_tokenizer("any", "byte")
    inner = tokenizers.Tokenizer.from_str(tokenizer.source)
    assert tokenizer.encode(text) == inner.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("kind", ["char", "bpe"])
def test_only_a_table_of_bytes_reads_any_bytes(kind: str) -> None:
    tokenizer = make_tokenizer("some words and more of them, some words " * 20, kind)
    assert not tokenizer.reads_any_bytes
    assert tokenizer.unknown("\udcff") == ["\udcff"]
    file = json.loads(make_tokenizer("any", "byte").source)
    file["normalizer"] = {"type": "Lowercase"}
    assert not Tokenizer(json.dumps(file)).reads_any_bytes


def test_a_stream_reads_what_a_file_holds(byte_model: Model, tmp_path: Path) -> None:
    session = byte_model.session()
    assert session.feed(as_text(DATA)) == len(DATA)
    assert session.learn(as_text(DATA)) == len(DATA)
    score = session.score(as_text(DATA))
    assert (score.tokens, score.bytes, score.unknown_characters) == (len(DATA), len(DATA), 0)


def test_what_is_written_is_whole(byte_model: Model, tmp_path: Path) -> None:
    """Bytes that are no text are U+FFFD in the text, and themselves beside it."""
    options = {"seed": 3, "temperature": 5.0, "max_new_tokens": 200}
    tokens = list(byte_model.session().tokens(**options))
    data = b"".join(byte_model.tokenizer.token_bytes[token.token] for token in tokens)
    written = b"".join(token.data for token in tokens)
    assert "\ufffd" in data.decode("utf-8", "replace")
    assert data.startswith(written)
    assert len(data) - len(written) < 4
    text = "".join(token.text for token in tokens)
    assert text == written.decode("utf-8", "replace")
    assert b"".join(byte_model.session().stream(**options).as_bytes()) == written
    assert byte_model.session().generate(**options) == text
    with byte_model.batch() as batch:
        assert batch.generate([""], **options) == [text]
    session = byte_model.session()
    stream = session.stream(**options)
    begun = "".join(next(stream) for _ in range(9))
    session.save(tmp_path / "state")
    rest = b"".join(byte_model.restore(tmp_path / "state").resume().as_bytes())
    assert written.endswith(rest)
    assert begun + rest.decode("utf-8", "replace") == text


def test_other_models_refuse_with_what_to_do(small_model: Model) -> None:
    session = small_model.session()
    for read in (session.feed, session.learn, session.score):
        with pytest.raises(UsageError, match=r"the byte 0xff, which is not UTF-8.*tokenizer byte"):
            read("The \udcff statement")
    assert session.position == 0


def test_on_the_command_line(byte_model: Model, tmp_path: Path) -> None:
    bundle, file = byte_model.bundle.path, tmp_path / "any.bin"
    file.write_bytes(DATA)
    options = ("--max-new-tokens", 40, "--temperature", 5, "--seed", 3)
    session = byte_model.session()
    session.feed(as_text(DATA))
    stream = session.stream(max_new_tokens=40, temperature=5.0, seed=3)
    expected = b"".join(stream.as_bytes())
    assert b"\xef\xbf\xbd" not in expected
    for source, stdin in ((("--file", file), ""), (("-",), as_text(DATA))):
        result = here("generate", bundle, *source, *options, stdin=stdin)
        assert text_bytes(result.stdout) == DATA + expected + b"\n", result.stderr
    result = here("generate", bundle, "--file", file, *options, "--json")
    line = json.loads(result.stdout.encode())
    assert base64.b64decode(line["bytes"]) == expected
    assert line["text"] == expected.decode("utf-8", "replace")
    result = here("score", bundle, file, "--learn-from", file, "--json")
    assert json.loads(result.stdout)["bytes"] == len(DATA) - 1
    result = here("generate", bundle, "--interactive", *options, stdin="\udcff\udcfe\n")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""


def test_an_argument_is_bytes(byte_model: Model) -> None:
    prompt = b"\xff\xfe\xe6\xb0"
    command = [*RILLET, "generate", str(byte_model.bundle.path), os.fsdecode(prompt)]
    result = subprocess.run(
        [*command, "--max-new-tokens", "0"],
        capture_output=True,
        env={**os.environ, "PYTHONUTF8": "1"},
        check=True,
    )
    assert result.stdout == prompt + b"\n"
    assert sys.getfilesystemencoding() == "utf-8"


def test_a_terminal_gets_characters(byte_model: Model) -> None:
    ours, theirs = os.openpty()
    with open(ours, "rb", buffering=0) as screen:
        command = [*RILLET, "generate", str(byte_model.bundle.path), os.fsdecode(b"caf\xe9")]
        environment = {**os.environ, "PYTHONUTF8": "1"}
        subprocess.run(
            [*command, "--max-new-tokens", "0"], stdout=theirs, env=environment, check=True
        )
        os.close(theirs)
        assert screen.read(100) == "caf\ufffd\r\n".encode()


def test_a_model_of_characters_refuses_on_the_command_line(
    small_bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "any.bin").write_bytes(DATA)
    result = here("generate", small_bundle, "The \udcff", "--max-new-tokens", 5)
    assert result.returncode == 2
    assert "the byte 0xff, which is not UTF-8" in result.stderr
    result = here("generate", small_bundle, "--file", tmp_path / "any.bin")
    assert result.returncode == 1
    assert "is not UTF-8 at byte 128" in result.stderr
    assert "--tokenizer byte" in result.stderr
    result = here("generate", small_bundle, "-i", "--max-new-tokens", 5, stdin="\udcff\nThe\n")
    assert result.returncode == 0
    assert "the byte 0xff" in result.stderr
    assert len(result.stdout) > 1

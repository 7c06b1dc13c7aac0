"""Fuzz with corrupted checkpoints, tokenizers and texts: a clear error, never a crash.

As in ``test_fuzz.py``, each case is generated from its number: ``RILLET_FUZZ_FROM`` and
``RILLET_FUZZ_CASES``.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save

from rillet.runtime import BundleError, CorpusError
from rillet.runtime.tokenizer import Tokenizer
from rillet.train import (
    Corpus,
    DualCNN,
    DualCNNTrainer,
    RollingWaveBuffer,
    TrainingConfig,
    load_checkpoint,
    make_tokenizer,
)
from rillet.train.checkpoint import CHECKPOINT_FILE
from rillet.train.data.token_file import open_tokens, write_tokens
from rillet.train.data.tokenizers import encode_blocks, prepare
from rillet.train.loop.resume import STATE_FILE
from support.models import SMALL
from support.mutations import (
    corrupt_bytes,
    corrupt_json,
    corrupt_tensor,
    corrupt_text,
    corrupt_tree,
)
from support.sandbox import attempt, little_memory

CASES = int(os.environ.get("RILLET_FUZZ_CASES", "120"))
FROM = int(os.environ.get("RILLET_FUZZ_FROM", "0"))


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    with little_memory() as obstacle:
        if obstacle is not None:
            pytest.skip(obstacle)
        yield


def each(count: int, make: Callable[[int, random.Random], Callable[[], Any]], place: Path) -> None:
    """Generate and run cases; fail with everything that went wrong.

    Args:
        count: How many cases.
        make: Generates the case of a number and returns the call to try; ``None`` where there
            is no such case.
        place: The only folder that may be read and written.
    """
    failures = []
    for number in range(FROM, FROM + count):
        call = make(number, random.Random(number))  # noqa: S311 - it is to be repeatable
        failure = None if call is None else attempt(f"case {number}", call, place)
        if failure is not None:
            failures.append(failure)
    assert not failures, f"{len(failures)} of {count}:\n" + "\n".join(failures[:20])


def corrupt_safetensors(good: Path, path: Path, chance: random.Random) -> bool:
    """Write a corrupted copy of a file with a JSON header; false where that is impossible."""
    kind = chance.randrange(3)
    if kind == 0:
        path.write_bytes(corrupt_bytes(good.read_bytes(), chance))
        return True
    with safe_open(good, framework="numpy") as file:
        header = json.loads(file.metadata()["rillet"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if kind == 1:
        header = corrupt_json(header, chance)
    else:
        for _ in range(chance.choice([1, 1, 3])):
            name = chance.choice(sorted(tensors))
            if chance.random() < 0.15:
                del tensors[name]
            elif chance.random() < 0.1:
                tensors[name], tensors["more"] = tensors[chance.choice(sorted(tensors))], np.ones(3)
            else:
                tensors[name] = corrupt_tensor(tensors[name], chance)
    try:
        plain = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
        path.write_bytes(save(plain, {"rillet": json.dumps(header)}))
    except (RecursionError, ValueError, TypeError, UnicodeEncodeError):
        return False
    return True


def test_checkpoints(small_run: Path, tmp_path: Path) -> None:
    path = tmp_path / CHECKPOINT_FILE

    def make(number: int, chance: random.Random) -> Callable[[], Any] | None:
        if not corrupt_safetensors(small_run / CHECKPOINT_FILE, path, chance):
            return None
        return lambda: load_checkpoint(tmp_path)

    each(CASES, make, tmp_path)


def test_training_states(text: str, tmp_path: Path) -> None:
    tokenizer = make_tokenizer(text[:20_000])
    tokens = torch.tensor(tokenizer.encode(text[:20_000]))
    config = TrainingConfig(steps=2, batch=2, chunk=32, precision="fp32")

    def trainer(folder: Path) -> DualCNNTrainer:
        model = DualCNN(SMALL.replace(vocab_size=tokenizer.vocab_size, codes="random"))
        model.fit(tokens, tokenizer.token_bytes)
        return DualCNNTrainer(model, config, folder=folder)

    good, bad = tmp_path / "good", tmp_path / "bad"
    good.mkdir()
    bad.mkdir()
    trainer(good).train(tokens)
    again = trainer(bad)

    def make(number: int, chance: random.Random) -> Callable[[], Any] | None:
        if not corrupt_safetensors(good / STATE_FILE, bad / STATE_FILE, chance):
            return None
        return partial(again._resume, None)

    each(CASES, make, tmp_path)


def test_wave_buffers(tmp_path: Path) -> None:
    good, path = tmp_path / "good", tmp_path / "bad"
    RollingWaveBuffer.from_config(SMALL).save(good)

    def make(number: int, chance: random.Random) -> Callable[[], Any] | None:
        if not corrupt_safetensors(good, path, chance):
            return None
        return lambda: RollingWaveBuffer.load(path)

    each(CASES, make, tmp_path)


@pytest.mark.parametrize("kind", ["char", "byte", "bpe"])
def test_tokenizers(text: str, tmp_path: Path, kind: str) -> None:
    good = make_tokenizer(text[:30_000], kind, 300 if kind == "bpe" else None).source
    path = tmp_path / "tokenizer.json"

    def use() -> None:
        tokenizer = Tokenizer.load(path)
        tokens = tokenizer.encode("The statement is \ud800 a näme 水. ")
        tokenizer.unknown("The \ud800")
        tokenizer.decode(tokens)
        decoder = tokenizer.decoder()
        "".join(decoder.push(token) for token in tokens)
        for _ in tokenizer.encode_stream(["some words ", "and more of them"]):
            pass
        for _ in encode_blocks(tokenizer, ["some words ", "and more of them"]):
            pass

    def make(number: int, chance: random.Random) -> Callable[[], Any]:
        path.write_bytes(corrupt_text(good, chance))
        return use

    each(CASES, make, tmp_path)


def test_token_files(tmp_path: Path) -> None:
    good = tmp_path / "good" / "corpus.tokens"
    good.parent.mkdir()
    write_tokens(good, [np.arange(300) % 50], 50, {"more": ["of it"]})
    path, header = tmp_path / "corpus.tokens", tmp_path / "corpus.tokens.json"

    def make(number: int, chance: random.Random) -> Callable[[], Any]:
        shutil.copyfile(good, path)
        content = good.with_name(header.name).read_text()
        if chance.random() < 0.3:
            path.write_bytes(corrupt_bytes(path.read_bytes(), chance))
        else:
            header.write_bytes(corrupt_text(content, chance))
        return lambda: open_tokens(path, chance.random() < 0.5).tensor()

    each(CASES, make, tmp_path)


def test_corpora(text: str, tmp_path: Path) -> None:
    """Binary content, other encodings, one endless line, links out of the folder, odd names."""
    secret = tmp_path / "outside" / "secret.txt"
    secret.parent.mkdir()
    secret.write_text("SECRET " * 1000)
    place = tmp_path / "inside"

    def use() -> None:
        read = prepare(Corpus(place / "corpus"), folder=place / "tokens", tokenizer="auto")
        known = "".join(Corpus(place / "corpus").blocks())
        assert "SECRET" not in known
        assert len(read.tokens) > 0

    def make(number: int, chance: random.Random) -> Callable[[], Any]:
        shutil.rmtree(place, ignore_errors=True)
        (place / "corpus").mkdir(parents=True)
        corrupt_tree(place / "corpus", text[:6000], secret, chance)
        return use

    each(CASES, make, place)


def test_a_device_or_a_pipe_in_a_folder_is_no_text(tmp_path: Path) -> None:
    """Neither ends: a pipe is read only where it is named itself."""
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "zero.txt").symlink_to("/dev/zero")
    for path in (tmp_path, tmp_path / "zero.txt"):
        with pytest.raises(CorpusError):
            Corpus(path).scan()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden": 2**40}, "hidden = 1099511627776, but axis 1 of wave_cnn"),
        ({"wave_blocks": 10**9}, "wave_blocks = 1000000000, but the number of tensors"),
        ({"width": 2**31 - 1}, "width is 2147483647; the heads must divide"),
        ({"readout_filters": 10**400}, "readout_filters = 1000"),
        ({"memory": 10**400}, "is damaged"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_sizes_that_a_checkpoint_only_declares(
    small_run: Path, tmp_path: Path, changes: dict[str, int], said: str
) -> None:
    path = tmp_path / CHECKPOINT_FILE
    with safe_open(small_run / CHECKPOINT_FILE, framework="numpy") as file:
        header = json.loads(file.metadata()["rillet"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    header["model"] |= changes
    path.write_bytes(save(tensors, {"rillet": json.dumps(header)}))
    with pytest.raises(BundleError, match=said):
        load_checkpoint(tmp_path)


def test_a_tokenizer_at_which_the_library_panics(text: str) -> None:
    """A panic of the library is no ``Exception``."""
    source = json.loads(make_tokenizer(text[:30_000], "bpe", 300).source)
    source["model"]["continuing_subword_prefix"] = "a long one that no token begins with"
    with pytest.raises(BundleError, match="is not a tokenizer file"):
        Tokenizer(json.dumps(source))

"""Fuzz with corrupted files and extreme options: a clear error, never a crash.

Each case is generated from its number, so that it can be repeated: ``RILLET_FUZZ_FROM=1234
RILLET_FUZZ_CASES=1 pytest tests/robustness/test_fuzz.py``. ``make test`` runs
hundreds of cases, ``make fuzz`` tens of thousands.
"""

from __future__ import annotations

import functools
import json
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save

from rillet.runtime import Model, SamplingParams, load
from rillet.runtime.start_state import START_STATE_FILE
from rillet.runtime.streams import saved_state as saved_state_module
from support.bundle_mutations import corrupt_bundle, sign
from support.mutations import EVIL, corrupt_bytes, corrupt_json, corrupt_tensor
from support.sandbox import attempt, little_memory

CASES = int(os.environ.get("RILLET_FUZZ_CASES", "120"))
FROM = int(os.environ.get("RILLET_FUZZ_FROM", "0"))


def use(folder: Path, state: Path, self_test: bool) -> None:
    """Do what users do with a bundle."""
    model = load(folder, "cpu", self_test=self_test)
    assert model.info.state_bytes > 0
    session = model.session()
    session.feed("The statement is a name. ")
    session.generate(max_new_tokens=5, seed=1, temperature=0.9)
    session.save(state)
    model.restore(state).generate(max_new_tokens=3, seed=1, in_graph=True)


@pytest.fixture
def bounded() -> Iterator[None]:
    """Limit memory to a few gigabytes: a graph's author decides its demand; see SECURITY.md."""
    with little_memory() as obstacle:
        if obstacle is not None:
            pytest.skip(obstacle)
        yield


@pytest.mark.usefixtures("bounded")
def test_corrupted_bundles(small_bundle: Path, tmp_path: Path) -> None:
    failures = []
    place = tmp_path / "inside"  # what lies beside it must not be read
    place.mkdir()
    folder = place / "bundle"
    for number in range(FROM, FROM + CASES):
        chance = random.Random(number)  # noqa: S311 - it is to be repeatable
        shutil.copytree(small_bundle, folder)
        what = f"case {number}: {corrupt_bundle(folder, chance)}"
        call = functools.partial(use, folder, place / "state", chance.random() < 0.5)
        failure = attempt(what, call, place)
        if failure is not None:
            failures.append(failure)
        shutil.rmtree(folder)
    assert {path.name for path in tmp_path.iterdir()} <= {"inside", "outside"}
    assert {path.name for path in place.iterdir()} <= {"state"}
    assert not failures, "\n".join(failures)


@pytest.mark.usefixtures("bounded")
def test_corrupted_start_states(taught_bundle: Path, tmp_path: Path) -> None:
    """What streams begin with, changed and signed again."""
    place = tmp_path / "inside"
    folder = shutil.copytree(taught_bundle, place / "bundle")
    file = folder / START_STATE_FILE
    content, table = file.read_bytes(), load_file(file)["memory_slots"]
    header = {"rillet": json.dumps({"format": "rillet-start", "format_version": "1.0"})}
    failures = []
    for number in range(FROM, FROM + CASES // 2):
        chance = random.Random(number)  # noqa: S311
        changed = {"memory_slots": corrupt_tensor(table, chance)}
        data = corrupt_bytes(content, chance) if number % 2 else save(changed, header)
        file.write_bytes(data)
        sign(folder)
        call = functools.partial(use, folder, place / "state", False)
        if (failure := attempt(f"case {number}", call, place)) is not None:
            failures.append(failure)
    assert not failures, "\n".join(failures)


@pytest.mark.usefixtures("bounded")
def test_corrupted_states(small_model: Model, tmp_path: Path) -> None:
    session = small_model.session()
    session.feed("The statement is a name. ")
    stream = session.tokens(
        seed=1,
        max_new_tokens=50,
        stop=["zz"],
        repetition_penalty=1.1,
        bad_words=["th"],
        logit_bias={"e": -1.0},
    )
    for _ in range(5):
        next(stream)
    good = tmp_path / "good"
    session.save(good)
    content = good.read_bytes()
    with safe_open(good, framework="numpy") as file:
        header_text = file.metadata()["rillet"]
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    failures = []
    path = tmp_path / "bad"
    for number in range(FROM, FROM + 4 * CASES):
        chance = random.Random(number)  # noqa: S311
        kind = chance.randrange(3)
        header, changed = json.loads(header_text), dict(tensors)
        if kind == 0:
            path.write_bytes(corrupt_bytes(content, chance))
        else:
            if kind == 1:
                corrupt_json(header, chance)
            else:
                name = chance.choice(sorted(changed))
                changed[name] = corrupt_tensor(changed[name], chance)
            if not sign_state(path, header, changed):
                continue
        call = functools.partial(resume, small_model, path)
        failure = attempt(f"case {number}, kind {kind}", call, tmp_path)
        if failure is not None:
            failures.append(failure)
    assert not failures, "\n".join(failures)


def resume(model: Model, path: Path) -> None:
    session = model.restore(path)
    "".join(session.resume(3))
    session.feed("x")
    session.generate(max_new_tokens=2)


def sign_state(path: Path, header: Any, tensors: dict[str, np.ndarray]) -> bool:
    """Write a state with a matching checksum; false where it cannot be written at all."""
    try:
        if isinstance(header, dict) and "checksum" in header:
            header["checksum"] = saved_state_module.checksum(header, tensors)
        path.write_bytes(save(tensors, {"rillet": json.dumps(header)}))
    except (RecursionError, ValueError, TypeError, UnicodeEncodeError):
        return False
    return True


EXTREME = st.one_of(
    st.sampled_from(EVIL),
    st.floats(),
    st.integers(),
    st.text(max_size=5),
    st.lists(st.text(max_size=3), max_size=3),
    st.dictionaries(st.one_of(st.text(max_size=1), st.integers(-2, 99)), st.floats(), max_size=3),
)
NAMES = [name for name in SamplingParams.__dataclass_fields__ if name != "max_new_tokens"]


@settings(max_examples=6 * CASES)
@given(
    prompt=st.one_of(
        st.text(max_size=40), st.text(st.characters(categories=["Cs", "Cn"]), max_size=3)
    ),
    options=st.dictionaries(st.sampled_from(NAMES), EXTREME, max_size=3),
    count=st.one_of(st.integers(0, 4), st.sampled_from([-1, None, "3", 1.5, True, 10**30])),
)
def test_extreme_options(
    small_model: Model, prompt: str, options: dict[str, Any], count: Any
) -> None:
    if count == 10**30:  # valid, and would take forever
        options, count = {**options, "choices": ["the"]}, 5
    failure = attempt(
        f"{prompt!r} {options!r} {count!r}",
        lambda: small_model.generate(prompt, max_new_tokens=count, **options),
    )
    assert failure is None, failure


@settings(max_examples=2 * CASES)
@given(value=EXTREME)
def test_extreme_texts_and_tokens(small_model: Model, value: Any) -> None:
    session = small_model.session()
    calls = {
        "feed": session.feed,
        "learn": session.learn,
        "score": session.score,
        "feed_tokens": session.feed_tokens,
        "step": session.step,
        "samples": session.samples,
    }
    for name, call in calls.items():
        if name == "samples" and type(value) is int and value > 50:
            continue  # valid, and would generate that many texts
        failure = attempt(f"{name}({value!r})", lambda call=call: call(value))
        assert failure is None, failure


@pytest.mark.parametrize(
    ("part", "times"), [("\0", 70_000), ("\ud800\udfff", 50), ("水", 200_000), ("a", 300_000)]
)
def test_long_and_strange_prompts(small_model: Model, part: str, times: int) -> None:
    call = functools.partial(small_model.generate, part * times, max_new_tokens=2)
    failure = attempt(repr(part), call)
    assert failure is None, failure


def test_a_golden_record_with_a_number_beyond_floats(small_bundle: Path, tmp_path: Path) -> None:
    """It counts as missing: `rillet verify` says so, and loading does not need it."""
    folder = shutil.copytree(small_bundle, tmp_path / "bundle")
    manifest = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    next(iter(manifest["golden"]["steps"][0]["logits"].values()))[0] = 10**400
    (folder / "bundle.json").write_text(json.dumps(manifest), encoding="utf-8")
    sign(folder)
    assert load(folder, "cpu").generate("The ", max_new_tokens=3, seed=1)

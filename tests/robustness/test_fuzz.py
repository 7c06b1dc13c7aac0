"""Files from strangers and wishes of all kinds: a sentence, never a crash.

Each case is made from a number, so that it can be made again: ``RILLET_FUZZ_FROM=1234
RILLET_FUZZ_CASES=1 pytest tests/robustness/test_fuzz.py``. Continuous integration runs some
hundreds; ``make fuzz`` some ten thousands.
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
from safetensors.numpy import save

from rillet.runtime import Model, SamplingParams, load
from rillet.runtime.streams import saved_state as saved_state_module
from support.bundle_mutations import corrupt_bundle, sign
from support.mutations import EVIL, corrupt_bytes, corrupt_json, corrupt_tensor
from support.sandbox import attempt, little_memory

CASES = int(os.environ.get("RILLET_FUZZ_CASES", "120"))
FROM = int(os.environ.get("RILLET_FUZZ_FROM", "0"))


def use(folder: Path, state: Path, self_test: bool) -> None:
    """What a user does with a bundle."""
    model = load(folder, "cpu", self_test=self_test)
    assert model.info.state_bytes > 0
    session = model.session()
    session.feed("The statement is a name. ")
    session.generate(max_new_tokens=5, seed=1, temperature=0.9)
    session.save(state)
    model.restore(state).generate(max_new_tokens=3, seed=1, in_graph=True)


@pytest.fixture
def bounded() -> Iterator[None]:
    """At most some gigabytes: what a graph asks for is up to who wrote it; see SECURITY.md."""
    with little_memory() as obstacle:
        if obstacle is not None:
            pytest.skip(obstacle)
        yield


@pytest.mark.usefixtures("bounded")
def test_spoilt_bundles(small_bundle: Path, tmp_path: Path) -> None:
    failures = []
    place = tmp_path / "inside"  # its neighbour may not be read
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
def test_spoilt_states(small_model: Model, tmp_path: Path) -> None:
    session = small_model.session()
    session.feed("The statement is a name. ")
    stream = session.tokens(seed=1, max_new_tokens=50, stop=["zz"], repetition_penalty=1.1,
                            bad_words=["th"], logit_bias={"e": -1.0})  # fmt: skip
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
        call = functools.partial(go_on, small_model, path)
        failure = attempt(f"case {number}, kind {kind}", call, tmp_path)
        if failure is not None:
            failures.append(failure)
    assert not failures, "\n".join(failures)


def go_on(model: Model, path: Path) -> None:
    session = model.restore(path)
    "".join(session.resume(3))
    session.feed("x")
    session.generate(max_new_tokens=2)


def sign_state(path: Path, header: Any, tensors: dict[str, np.ndarray]) -> bool:
    """Write a state with a checksum that fits; whether it can be written at all."""
    try:
        if isinstance(header, dict) and "checksum" in header:
            header["checksum"] = saved_state_module.checksum(header, tensors)
        path.write_bytes(save(tensors, {"rillet": json.dumps(header)}))
    except (RecursionError, ValueError, TypeError, UnicodeEncodeError):
        return False
    return True


WILD = st.one_of(
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
    options=st.dictionaries(st.sampled_from(NAMES), WILD, max_size=3),
    count=st.one_of(st.integers(0, 4), st.sampled_from([-1, None, "3", 1.5, True, 10**30])),
)  # fmt: skip
def test_wild_options(small_model: Model, prompt: str, options: dict[str, Any], count: Any) -> None:
    if count == 10**30:  # it would be done, one token after the other
        options, count = {**options, "choices": ["the"]}, 5
    failure = attempt(
        f"{prompt!r} {options!r} {count!r}",
        lambda: small_model.generate(prompt, max_new_tokens=count, **options),
    )
    assert failure is None, failure


@settings(max_examples=2 * CASES)
@given(value=WILD)
def test_wild_texts_and_tokens(small_model: Model, value: Any) -> None:
    session = small_model.session()
    calls = {
        "feed": session.feed, "learn": session.learn, "score": session.score,
        "feed_tokens": session.feed_tokens, "step": session.step, "samples": session.samples,
    }  # fmt: skip
    for name, call in calls.items():
        if name == "samples" and type(value) is int and value > 50:
            continue  # so many texts would be made
        failure = attempt(f"{name}({value!r})", lambda call=call: call(value))
        assert failure is None, failure


@pytest.mark.parametrize(
    ("part", "times"), [("\0", 70_000), ("\ud800\udfff", 50), ("水", 200_000), ("a", 300_000)]
)
def test_long_and_strange_prompts(small_model: Model, part: str, times: int) -> None:
    call = functools.partial(small_model.generate, part * times, max_new_tokens=2)
    failure = attempt(repr(part), call)
    assert failure is None, failure


def test_a_golden_record_with_a_number_that_no_float_holds(
    small_bundle: Path, tmp_path: Path
) -> None:
    """It is as good as none: `rillet verify` says so, and loading does not need it."""
    folder = shutil.copytree(small_bundle, tmp_path / "bundle")
    manifest = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    next(iter(manifest["golden"]["steps"][0]["logits"].values()))[0] = 10**400
    (folder / "bundle.json").write_text(json.dumps(manifest), encoding="utf-8")
    sign(folder)
    assert load(folder, "cpu").generate("The ", max_new_tokens=3, seed=1)

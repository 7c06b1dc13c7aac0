"""Arguments of a wrong kind are refused by the API's own errors, and nothing changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rillet.runtime import Model, RilletError, Session, StateError, UsageError, load

NANO = Path(__file__).parents[2] / "models" / "shakespeare-nano"

BY_SESSION: dict[str, tuple[Callable[[Session], object], str]] = {
    "rollback": (lambda it: it.rollback(None), r"the snapshot is None; give what .*checkpoint\(\)"),
    "save": (lambda it: it.save(None), "the path is None; it must be a text"),
    "save bytes": (lambda it: it.save(b"a"), "the path is b'a'"),
    "save nul": (lambda it: it.save("a\0b"), r"the path is 'a\\x00b'"),
    "save half": (lambda it: it.save("\ud800"), "the path is"),
    "generate text": (lambda it: it.generate("ROMEO:"), r"params is 'ROMEO:'; .*session\.feed\(\)"),
    "on_text": (lambda it: it.generate(on_text=5), "on_text is 5; it must be a function of a text"),
    "stream": (lambda it: it.stream(on_text=5), "on_text is 5"),
    "resume": (lambda it: it.resume(on_text=5), "on_text is 5"),
    "progress": (lambda it: it.score("abc", progress=5), "progress is 5; .* number of tokens"),
    "per_token": (lambda it: it.score("abc", per_token=5), "per_token is 5"),
    "in_graph": (lambda it: it.generate(in_graph="x"), "in_graph is 'x'; it must be true or"),
    "choices": (lambda it: it.generate(choices=[]), r"choices is \[\], so that no text .* leave"),
    "length_penalty": (lambda it: it.beam_search(2, length_penalty="x"), "length_penalty is 'x'"),
    "processor": (lambda it: it.generate(logits_processor=5), "tokens and the logits"),
}
BY_MODEL: dict[str, tuple[Callable[[Model], object], str]] = {
    "memory": (lambda it: it.session(memory=5), "memory is 5; it must be true or false"),
    "taught": (lambda it: it.session(taught="no"), "taught is 'no'; it must be true or false"),
    "restore": (lambda it: it.restore(None), "the path is None"),
    "join": (lambda it: it.batch().join(None), "the session is None; make one with model.session"),
    "leave": (lambda it: it.batch().leave(None), "is not in this batch"),
    "step": (lambda it: it.batch().step(None), "tokens is None; it must map each session"),
    "prompts": (lambda it: it.batch().generate(None), "prompts is 'None'; give a list of texts"),
    "prompt": (lambda it: it.generate(5), "the text to read is 5"),
    "choices": (lambda it: it.generate("a", choices=()), "choices is .*at least one, or leave"),
}


@pytest.fixture(scope="module")
def model() -> Model:
    return load(NANO, self_test=False)


@pytest.mark.parametrize("name", BY_SESSION)
def test_a_session_refuses_it_and_stays(model: Model, name: str) -> None:
    call, message = BY_SESSION[name]
    session = model.session()
    session.feed("ROMEO:")
    text = session.generate(max_new_tokens=3, seed=1)
    with pytest.raises(UsageError, match=message):
        call(session)
    assert session.position == 9
    whole = model.generate("ROMEO:", max_new_tokens=9, seed=1)
    assert text + "".join(session.resume(6)) == whole


@pytest.mark.parametrize("name", BY_MODEL)
def test_a_model_refuses_it(model: Model, name: str) -> None:
    call, message = BY_MODEL[name]
    with pytest.raises(UsageError, match=message):
        call(model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": None}, "the path is None"),
        ({"path": "a\0b"}, "the path is"),
        ({"path": NANO, "provider": 5}, "provider 5 is unknown"),
        ({"path": NANO, "threads": "x"}, "threads is 'x'"),
        ({"path": NANO, "allow_fallback": 5}, "allow_fallback is 5"),
        ({"path": NANO, "self_test": None}, "self_test is None"),
    ],
)
def test_load_refuses_it(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RilletError, match=message):
        load(**options)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (NANO, "is a folder and not a saved stream; give a file that session.save"),
        (Path("/dev/null"), "is a device or a pipe and not a saved stream"),
        (NANO / "none", "none does not exist; give a file that session.save"),
    ],
)
def test_restore_says_what_it_got(model: Model, path: Path, message: str) -> None:
    with pytest.raises(StateError, match=message):
        model.restore(path)


def test_no_choices_are_any_text(model: Model) -> None:
    text = model.generate("a", seed=1, max_new_tokens=9)
    assert model.generate("a", seed=1, max_new_tokens=9, choices=None) == text

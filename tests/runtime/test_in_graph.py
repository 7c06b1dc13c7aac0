"""Generating inside the graph gives the same text as generating step by step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rillet.runtime import BundleError, Model, UsageError, load

SAMPLING: list[dict[str, Any]] = [
    {"temperature": 0.0},
    {"temperature": 0.8, "seed": 3},
    {"temperature": 1.1, "top_k": 9, "top_p": 0.85, "seed": 4},
]


@pytest.mark.parametrize("sampling", SAMPLING, ids=str)
@pytest.mark.parametrize("learn", ["read", "all"])
@pytest.mark.parametrize("count", [0, 1, 32, 75])
def test_in_graph_text_equals_step_by_step_text(
    small_model: Model, sampling: dict[str, Any], learn: str, count: int
) -> None:
    """And leaves the stream with the same position, logits, state and random numbers."""
    inside, outside = small_model.session(learn), small_model.session(learn)
    pieces: list[str] = []
    for session in (inside, outside):
        session.feed("The reference ")
    text = inside.generate(in_graph=True, on_text=pieces.append, max_new_tokens=count, **sampling)
    assert text == "".join(pieces) == outside.generate(max_new_tokens=count, **sampling)
    assert inside.position == outside.position
    np.testing.assert_allclose(inside.logits, outside.logits, atol=1e-5)
    for name, value in inside.state.items():
        np.testing.assert_allclose(value, outside.state[name], atol=1e-5, err_msg=name)
    assert "".join(inside.resume(20)) == "".join(outside.resume(20))


def test_top_k_may_exceed_the_vocabulary(small_model: Model) -> None:
    options = {"temperature": 1.0, "seed": 8, "max_new_tokens": 9, "top_k": 10**30}
    session = small_model.session()
    twin = session.fork()
    assert session.generate(in_graph=True, **options) == twin.generate(**options)


@pytest.mark.parametrize("place", [0, 5, 31, 32, 50])
def test_a_stop_string_leaves_the_same_stream(small_model: Model, place: int) -> None:
    """Wherever it falls within a call of the graph: nothing after it is read, drawn or learnt."""
    whole = small_model.generate("The ", learn="all", temperature=1.0, seed=8, max_new_tokens=90)
    stop = whole[place : place + 3]
    texts, sessions = [], []
    for in_graph in (True, False):
        session = small_model.session("all")
        session.feed("The ")
        texts.append(
            session.generate(
                in_graph=in_graph, temperature=1.0, seed=8, max_new_tokens=90, stop=[stop]
            )
        )
        sessions.append(session)
    inside, outside = sessions
    assert texts[0] == texts[1] == whole[: whole.index(stop)]
    assert inside.position == outside.position
    for name, value in inside.state.items():
        np.testing.assert_allclose(value, outside.state[name], atol=1e-5, err_msg=name)
    assert "".join(inside.resume(20)) == "".join(outside.resume(20))


@pytest.mark.parametrize(
    "option",
    [{"min_p": 0.1}, {"typical_p": 0.5}, {"top_logprobs": 3}, {"repetition_penalty": 1.2}],
    ids=str,
)
def test_options_that_the_graph_lacks_are_refused(
    small_bundle: Path, option: dict[str, Any]
) -> None:
    session = load(small_bundle, "cpu").session()
    session.feed("The ")
    before = session.position
    with pytest.raises(UsageError, match="cannot be used inside the graph"):
        session.generate(in_graph=True, **option)
    assert session.position == before


def test_on_finish_receives_the_statistics(
    small_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it does for every other generation."""
    seen: list[Any] = []
    monkeypatch.setattr(small_model, "on_finish", seen.append)
    session = small_model.session()
    session.feed("The ")
    session.generate(in_graph=True, max_new_tokens=40, seed=1)
    session.generate(max_new_tokens=7, seed=1)
    assert [(stats.tokens, stats.finish_reason) for stats in seen] == [
        (40, "length"),
        (7, "length"),
    ]
    assert all(0 < stats.first_token_seconds <= stats.seconds for stats in seen)


def test_a_bundle_without_a_generate_graph_is_refused(small_bundle: Path) -> None:
    model = load(small_bundle, "cpu")
    del model.bundle.manifest["graphs"]["generate"]
    with pytest.raises(BundleError, match="no generate graph"):
        model.session().generate(in_graph=True, max_new_tokens=3)

"""What `generate` had written when it failed is read next, and is in the saved stream."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from rillet.runtime import EngineError, Model, Session, load

MODELS = Path(__file__).parents[2] / "models"


class Fails:
    """Calls another function, and fails once after so many calls."""

    def __init__(self, call: Any, after: int) -> None:
        self.call, self.left = call, after

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self.left -= 1
        if self.left == -1:
            raise EngineError("the device is lost, for a moment")
        return self.call(*arguments, **options)


def same(tokens: npt.NDArray[Any], logits: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return logits


@pytest.fixture(params=["shakespeare-nano", "bible-nano"])
def model(request: pytest.FixtureRequest) -> Iterator[Model]:
    with load(MODELS / request.param, "cpu") as model:
        yield model


def begun(model: Model) -> Session:
    session = model.session()
    session.feed("And he said ")
    return session


def failed(model: Model, after: int = 20, **options: Any) -> Session:
    """A session in whose `generate` the engine has failed."""
    session, step = begun(model), model.engine.step
    model.engine.step = Fails(step, after)  # type: ignore[method-assign]
    with pytest.raises(EngineError):
        session.generate(**options)
    del model.engine.step
    return session


@pytest.mark.parametrize("in_graph", [False, True])
def test_after_a_failed_step(model: Model, in_graph: bool) -> None:
    options: dict[str, Any] = {"max_new_tokens": 90, "seed": 1}
    whole = begun(model).generate(**options)
    after = 2 if in_graph else 20
    session = failed(model, after, **options, in_graph=in_graph)
    written = session.position - len("And he said ")
    assert 20 <= written < 90
    assert "".join(session.fork().resume(0)).startswith(whole[:10])
    assert "".join(session.fork().resume(5)) == begun(model).generate(
        max_new_tokens=written + 5, seed=1
    )
    stream = session.resume()
    assert "".join(stream) == whole
    assert stream.stats.tokens == 90 - written


def test_after_a_processor_that_failed(model: Model) -> None:
    session = begun(model)
    with pytest.raises(EngineError):
        session.generate(logits_processor=Fails(same, 20), max_new_tokens=40, seed=1)
    whole = begun(model).generate(max_new_tokens=40, seed=1)
    assert "".join(session.resume()) == whole
    assert session.generate(max_new_tokens=3, seed=1) != whole[:3]  # nothing comes twice


def test_after_a_report_that_failed(model: Model) -> None:
    """The text has ended, which its reader has not seen: it ends there still."""
    session = begun(model)
    whole = begun(model).generate(stop="e", max_new_tokens=400, seed=1)
    model.on_finish = Fails(same, 0)
    with pytest.raises(EngineError):
        session.generate(stop="e", max_new_tokens=400, seed=1)
    model.on_finish = None
    stream = session.resume()
    assert ("".join(stream), stream.finish_reason) == (whole, "stop")


def test_other_options_and_bytes_go_on_with_it(model: Model) -> None:
    expected = failed(model, max_new_tokens=40, seed=1)
    text = "".join(expected.resume(temperature=0))
    again = failed(model, max_new_tokens=40, seed=1)
    assert b"".join(again.resume(temperature=0).as_bytes()).decode() == text
    assert len(text.encode()) >= 40
    assert text[:20] == begun(model).generate(max_new_tokens=40, seed=1)[:20]


def test_what_on_text_got_does_not_come_again(model: Model) -> None:
    whole = begun(model).generate(max_new_tokens=90, seed=1)
    for in_graph, after in ((False, 20), (True, 2)):
        pieces: list[str] = []
        session = failed(
            model, after, max_new_tokens=90, seed=1, in_graph=in_graph, on_text=pieces.append
        )
        assert pieces
        assert "".join([*pieces, *session.resume()]) == whole


def test_a_processor_may_look_at_the_stream(model: Model) -> None:
    session, twins = begun(model), []

    def look(tokens: npt.NDArray[Any], logits: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if tokens.size == 16:
            twins.append(session.fork())
        return np.asarray(logits)

    whole = session.generate(logits_processor=look, max_new_tokens=40, seed=1)
    assert whole == begun(model).generate(max_new_tokens=40, seed=1)
    assert "".join(twins[0].resume()) == whole

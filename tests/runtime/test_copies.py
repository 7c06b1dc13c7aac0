"""`copy` and `pickle` refuse what they would copy by half, and say what to use."""

from __future__ import annotations

import copy
import pickle  # noqa: TID251 - that it is refused
from collections.abc import Callable
from pathlib import Path

import pytest

from rillet.runtime import Model, UsageError, load

NANO = Path(__file__).parents[2] / "models" / "shakespeare-nano"
THINGS: dict[str, tuple[Callable[[Model], object], str]] = {
    "Model": (lambda model: model, "share it .* or load"),
    "Session": (lambda model: model.session(), r"session\.fork\(\) .* session\.save"),
    "Snapshot": (lambda model: model.session().checkpoint(), "share it"),
    "TextStream": (lambda model: model.stream(), r"fork its session .* resume\(\)"),
    "TokenStream": (lambda model: model.stream().tokens, r"fork its session .* resume\(\)"),
    "Batch": (lambda model: model.batch(), ".* sessions .* fork"),
}


@pytest.fixture(scope="module")
def model() -> Model:
    return load(NANO, self_test=False)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
@pytest.mark.parametrize("name", THINGS)
def test_a_copy_is_refused(model: Model, name: str, copied: Callable[[object], object]) -> None:
    make, advice = THINGS[name]
    with pytest.raises(UsageError, match=f"{name} objects .* copied nor pickled; {advice}"):
        copied(make(model))


def test_what_holds_them_is_copied_by_reference(model: Model) -> None:
    session = model.session()
    assert copy.copy([session])[0] is session

"""A server for the tests of a module; its extra may be missing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rillet.runtime import Model, load
from support.server import NANO, serving


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs the extra ``serve`` where it is not installed."""
    try:
        import prometheus_client  # noqa: F401
        import pydantic  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        for item in items:
            if Path(item.path).parent == Path(__file__).parent:
                item.add_marker(pytest.mark.skip(f"rillet[serve] is not installed: {error}"))


@pytest.fixture(scope="session")
def shakespeare() -> Model:
    """The model that the servers serve."""
    return load(NANO)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """A server of one model, without a folder for streams."""
    with serving(tmp_path_factory.mktemp("server") / "log", NANO, "--rows", "64") as server:
        yield server

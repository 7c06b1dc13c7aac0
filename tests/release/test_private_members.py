"""Nobody touches another object's underscore member; the check finds each way to do it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from check_architecture import ALLOWED_PRIVATE, ROOT, Module, check_private, read_modules

PACKAGES = ("runtime", "train", "export", "integrations")


def report(code: str) -> list[str]:
    path = Path("runtime", "streams", "session.py")
    module = Module(path, path.with_suffix("").parts, ast.parse(code))
    return list(check_private(module))


def test_the_product_has_no_such_use() -> None:
    modules = read_modules(ROOT, PACKAGES).values()
    violations = [text for module in modules for text in check_private(module)]
    assert not violations, "\n".join(violations)


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("session._state", "session._state"),
        ("session._state = 1", "session._state"),
        ("del session._state", "session._state"),
        ("self.model._report()", "self.model._report"),
        ("f(x)[0]._rows.y", "f(x)[0]._rows"),
        ("type(self)._cache", "type(self)._cache"),
        ("def f(a, b: Session = x): return lambda: a._b", "a._b"),
        ("session.__secret", "session.__secret"),
        ("from .batch import _join", ".batch._join"),
        ("from .batch import _join as join", ".batch._join"),
        ("def f():\n from ..streams.batch import _join", "..streams.batch._join"),
        ("from ._hidden import name", "._hidden.name"),
        ("import numpy._core.umath", "numpy._core.umath"),
        ("from torch._dynamo import config", "torch._dynamo.config"),
        ("torch._foreach_mul_(a, b)", "torch._foreach_mul_"),
        ("getattr(session, '_state')", "session._state"),
        ("getattr(session, '_state', None)", "session._state"),
        ("setattr(session, '_state', 1)", "session._state"),
        ("hasattr(session, '_state')", "session._state"),
        ("object.__setattr__(session, '_state', 1)", "session._state"),
    ],
)
def test_a_use_is_found(code: str, name: str) -> None:
    (message,) = report(code)
    assert message.endswith(f"uses the private name {name} of another object")
    assert message.startswith("runtime/streams/session.py:")


@pytest.mark.parametrize(
    "code",
    [
        "self._state", "cls._cache", "super()._start()", "self._state.read()",
        "session.__class__", "x.__dict__", "_local", "from . import name",
        "from __future__ import annotations", "import importlib.metadata",
        "getattr(self, '_state')", "getattr(session, 'state')", "getattr(session, name)",
        "object.__setattr__(self, '_state', 1)", "params._replace(seed=1)", "row._asdict()",
        "lambda _: _", "def _f(_x): return _x",
        "from torch._higher_order_ops.scan import scan",
    ],
)  # fmt: skip
def test_what_is_one_s_own_or_public_is_not(code: str) -> None:
    assert report(code) == []


def test_a_use_in_any_folder_is_found(tmp_path: Path) -> None:
    folders = sorted({file.parent.relative_to(ROOT) for name in PACKAGES
                      for file in (ROOT / name).rglob("*.py")})  # fmt: skip
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "wrong.py").write_text("\n\nsession._state\n")
    modules = read_modules(tmp_path, PACKAGES)
    messages = [text for module in modules.values() for text in check_private(module)]
    assert len(messages) == len(folders) > 20
    assert {text.rpartition(":3:")[0] for text in messages} == {f"{f}/wrong.py" for f in folders}


def test_what_is_allowed_is_used() -> None:
    sources = "".join(file.read_text() for name in PACKAGES for file in (ROOT / name).rglob("*.py"))
    for name in ALLOWED_PRIVATE:
        package, _, last = name.rpartition(".")
        assert name in sources or f"from {package} import {last}" in sources, name

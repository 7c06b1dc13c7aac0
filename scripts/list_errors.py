"""List every error message of the packages, with `…` in place of values.

    python scripts/list_errors.py            messages, and where they are raised
    python scripts/list_errors.py --json     the same as JSON

docs/troubleshooting.md explains each message, which tests/docs/test_troubleshooting.py checks.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("runtime", "train", "export", "integrations")

# Errors raised with a variable as the whole text, and the functions that build the texts.
SENTENCES = {
    "train/config/model_config.py:validate": (
        "train/config/model_config.py:conflicts",
        "train/config/model_config.py:_memory_conflicts",
        "train/config/model_config.py:_context_conflicts",
    ),
    "train/config/training_config.py:validate": (
        "train/config/training_config.py:conflicts",
        "train/config/fields.py:check_fields",
    ),
    "train/waves/wave_buffer.py:__init__": ("train/waves/wave_buffer.py:__init__",),
    "runtime/engines/cuda/driver.py:_driver": ("runtime/engines/cuda/driver.py:driver_obstacle",),
    "runtime/engines/tensorrt/api.py:find_tensorrt": (
        "runtime/engines/cuda/driver.py:driver_obstacle",
    ),
    "runtime/engines/ort/providers.py:create_session": (
        "runtime/engines/ort/providers.py:obstacle",
        "runtime/engines/ort/providers.py:mixed_up_engines",
    ),
    "runtime/engines/ort/device_engine.py:_load": ("runtime/engines/ort/providers.py:obstacle",),
    "runtime/engines/select.py:open_engine": ("runtime/engines/select.py:open_engine",),
}


def messages() -> dict[str, list[str]]:
    """Collect every message, and the places `file:line` that build it.

    Raises:
        SystemExit: An error is raised with a variable text whose origin SENTENCES lacks.
    """
    trees = {
        str(file.relative_to(ROOT)): ast.parse(file.read_text())
        for package in PACKAGES
        for file in sorted((ROOT / package).rglob("*.py"))
    }
    errors = _error_classes(trees.values())
    places: dict[str, list[str]] = {}
    builders: set[str] = set()
    for path, tree in trees.items():
        for function, call in _calls(tree):
            if not call.args or _callee(call) not in errors:
                continue
            text = _template(call.args[0], _constants(tree))
            if text == "…":
                builders |= _builders(f"{path}:{function}", call.args[0])
            else:
                places.setdefault(text, []).append(f"{path}:{call.lineno}")
    for builder in builders:
        path, _, name = builder.partition(":")
        for text, line in _sentences(trees[path], name):
            places.setdefault(text, []).append(f"{path}:{line}")
    return places


def _builders(place: str, text: ast.expr) -> set[str]:
    """The functions that build the text of an error that is raised with a variable."""
    if isinstance(text, ast.Call) and _callee(text) == "str":
        return set()  # repeats the text of another error
    if place not in SENTENCES:
        raise SystemExit(
            f"{place} raises a text that is built elsewhere ({ast.unparse(text)}); add where to "
            f"SENTENCES in {Path(__file__).name}"
        )
    return set(SENTENCES[place])


def _error_classes(trees: Iterable[ast.Module]) -> set[str]:
    """RilletError, its subclasses, and click's errors."""
    names = {"RilletError"}
    bases = {
        node.name: {base.id for base in node.bases if isinstance(base, ast.Name)}
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    while more := {name for name, above in bases.items() if above & names} - names:
        names |= more
    return names | {
        "click.UsageError",
        "click.BadParameter",
        "click.ClickException",
        "self.error",  # of a TensorFormat
    }


def _calls(tree: ast.AST, function: str = "") -> Iterator[tuple[str, ast.Call]]:
    """Every call, with the name of the enclosing function."""
    for node in ast.iter_child_nodes(tree):
        inner = node.name if isinstance(node, ast.FunctionDef) else function
        if isinstance(node, ast.Call):
            yield function, node
        yield from _calls(node, inner)


def _callee(call: ast.Call) -> str:
    return ast.unparse(call.func)


def _constants(tree: ast.Module) -> dict[str, str]:
    """String constants of a module, by name."""
    return {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def _template(node: ast.expr, constants: dict[str, str]) -> str:
    """The wording of a text expression, with `…` in place of values."""

    def write(part: ast.expr) -> str:
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            return part.value
        if isinstance(part, ast.JoinedStr):
            return "".join(map(write, part.values))
        if isinstance(part, ast.FormattedValue):
            return write(part.value)
        if isinstance(part, ast.BinOp) and isinstance(part.op, ast.Add):
            return write(part.left) + write(part.right)
        if isinstance(part, ast.Name) and part.id in constants and " " in constants[part.id]:
            return constants[part.id]
        return "…"

    return re.sub("…[…]*", "…", write(node)).replace("\n", " ")


def _sentences(tree: ast.Module, name: str) -> Iterator[tuple[str, int]]:
    """Texts of three words or more that a function returns, assigns or appends."""
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef) or function.name != name:
            continue
        for node in ast.walk(function):
            texts: list[ast.expr] = []
            if isinstance(node, ast.Return | ast.Assign) and node.value is not None:
                texts = [node.value]
            elif isinstance(node, ast.Call) and _callee(node).endswith(".append"):
                texts = list(node.args)
            elif isinstance(node, ast.ListComp):
                texts = [node.elt]
            for text in texts:
                sentence = _template(text, _constants(tree))
                if len(sentence.replace("…", "").split()) >= 3:
                    yield sentence, text.lineno


def main() -> None:
    """Print the messages."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    places_by_text = messages()
    if options.json:
        print(json.dumps(places_by_text, ensure_ascii=False, indent=1))
        return
    for text, places in sorted(places_by_text.items(), key=lambda entry: entry[1]):
        print(f"{', '.join(places)}\n    {text}")


if __name__ == "__main__":
    main()

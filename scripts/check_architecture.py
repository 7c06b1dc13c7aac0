"""Hold the product to docs/architecture.md: who imports whom, and what stays private.

    python scripts/check_architecture.py

The order of modules and folders is read from the page's fenced block, so the page and the check
cannot drift apart. Imports inside functions and under ``TYPE_CHECKING`` count like any other.
Prints each violation as ``file:line: message`` and exits with 1 if there is one.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = Path("docs", "architecture.md")
PROJECT = "rillet"
PUBLIC_BY_CONVENTION = frozenset({"_asdict", "_fields", "_make", "_replace"})
"""Members of named tuples: the underscore only keeps them apart from field names."""

ALLOWED_PRIVATE = (
    "torch._higher_order_ops.scan",  # what becomes ONNX Scan; torch has no public name for it
)
"""Private names of other projects that the product may use: this name, or what is inside it."""


@dataclass
class Rule:
    """The order of one folder's children: each may import those on earlier lines.

    Attributes:
        ranks: Line number of each child; children on one line do not import each other.
        forbidden: Top-level packages that nothing in the folder imports.
    """

    ranks: dict[str, int] = field(default_factory=dict)
    forbidden: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Module:
    """One source file: ``parts`` is its place, such as ``("runtime", "streams", "session")``."""

    path: Path
    parts: tuple[str, ...]
    tree: ast.Module

    @property
    def name(self) -> str:
        """Dotted name inside the project; a package is its ``__init__``."""
        return ".".join(self.parts)


Edges = dict[str, dict[str, int]]
"""For each module, the project's modules that it imports, and the line that does."""


def main(arguments: list[str] | None = None) -> int:
    """Check a tree and print what breaks the rules."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository to check")
    violations = check(parser.parse_args(arguments).root)
    for violation in violations:
        print(violation)
    return bool(violations)


def check(root: Path) -> list[str]:
    """All violations in a repository.

    Args:
        root: The folder that holds ``docs/architecture.md`` and the packages it names.

    Returns:
        One ``file:line: message`` for each violation, sorted by file and line.

    Raises:
        ValueError: The page has no block of rules, or a file does not parse.
    """
    rules = read_rules((root / PAGE).read_text(encoding="utf-8"))
    modules = read_modules(root, rules[PROJECT].ranks)
    edges = {name: project_imports(module, modules) for name, module in modules.items()}
    violations = [
        *check_places(root, rules),
        *check_order(modules, edges, rules),
        *check_cycles(modules, edges),
        *(text for module in modules.values() for text in check_foreign(module, rules)),
        *(text for module in modules.values() for text in check_private(module)),
    ]
    return sorted(violations, key=_place)


def _place(violation: str) -> tuple[str, int]:
    file, line, _ = violation.split(":", 2)
    return file, int(line)


# The rules, as the page states them.


def read_rules(page: str) -> dict[str, Rule]:
    """The rule of each folder, by its path, from the page's block that starts with ``rillet/``."""
    block = re.search(rf"^```text\n({PROJECT}/.*?)^```", page, re.DOTALL | re.MULTILINE)
    if block is None:
        raise ValueError(f"{PAGE} has no ```text block that starts with {PROJECT}/")
    rules: dict[str, Rule] = {}
    for number, line in enumerate(block[1].splitlines()):
        header = re.fullmatch(r"(\S+)/(?: +never imports (.+))?", line)
        if header is not None:
            rule = rules[header[1]] = Rule(forbidden=frozenset((header[2] or "").split()))
        else:
            rule.ranks.update(dict.fromkeys(line.split(), number))
    return rules


def read_modules(root: Path, packages: Iterable[str]) -> dict[str, Module]:
    """Every source file of the packages, by its dotted name."""
    modules = {}
    for package in packages:
        for file in sorted((root / package).rglob("*.py")):
            path = file.relative_to(root)
            parts = path.with_suffix("").parts
            tree = ast.parse(file.read_text(encoding="utf-8"), str(path))
            module = Module(path, parts[:-1] if parts[-1] == "__init__" else parts, tree)
            modules[module.name] = module
    return modules


# Imports.


def imported_names(module: Module) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Each imported name, in full, with its line: ``("rillet", "runtime", "errors", "x")``."""
    is_package = module.path.name == "__init__.py"
    here = (PROJECT, *module.parts, *(["__init__"] if is_package else []))
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, tuple(alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            base = here[: -node.level] if node.level else ()
            base += tuple(node.module.split(".")) if node.module else ()
            for alias in node.names:
                yield node.lineno, (*base, alias.name)
        elif isinstance(node, ast.Call) and node.args:
            function, first = node.func, node.args[0]
            called = function.attr if isinstance(function, ast.Attribute) else ""
            called = function.id if isinstance(function, ast.Name) else called
            if called in ("import_module", "__import__") and isinstance(first, ast.Constant):
                yield node.lineno, tuple(str(first.value).split("."))


def project_imports(module: Module, modules: dict[str, Module]) -> dict[str, int]:
    """The project's modules that a module imports, each with the first line that does."""
    found: dict[str, int] = {}
    for line, (first, *rest) in imported_names(module):
        if first != PROJECT:
            continue
        while rest and ".".join(rest) not in modules:
            rest.pop()  # a name inside a module
        if rest:
            found.setdefault(".".join(rest), line)
    return found


def check_places(root: Path, rules: dict[str, Rule]) -> Iterator[str]:
    """Every child of a folder with a rule has a place in it, and the rule names nothing else."""
    for folder, rule in rules.items():
        if folder == PROJECT:
            continue
        children = {
            path.stem
            for path in (root / folder).iterdir()
            if path.suffix == ".py" or any(path.glob("**/*.py"))
        }
        for name in sorted(children - set(rule.ranks)):
            yield f"{PAGE}:1: {folder}/{name} has no line in the block of rules"
        for name in sorted(set(rule.ranks) - children):
            yield f"{PAGE}:1: the block of rules names {folder}/{name}, which does not exist"


def check_order(modules: dict[str, Module], edges: Edges, rules: dict[str, Rule]) -> Iterator[str]:
    """No module imports one that stands on its own line or on a later one."""
    for name, targets in edges.items():
        for target, line in targets.items():
            for folder, rule in rules.items():
                source_child = child(folder, modules[name].parts)
                target_child = child(folder, modules[target].parts)
                if source_child == target_child or not {source_child, target_child} <= set(
                    rule.ranks
                ):
                    continue
                if rule.ranks[target_child] >= rule.ranks[source_child]:
                    yield (
                        f"{modules[name].path}:{line}: imports {target}, and in {folder}/ "
                        f"{source_child} may not import {target_child}"
                    )


def child(folder: str, parts: tuple[str, ...]) -> str:
    """The child of a folder that a module is, or lies in; ``""`` if it is not in the folder."""
    if folder == PROJECT:
        return parts[0]
    inside = tuple(folder.split("/"))
    if parts[: len(inside)] != inside:
        return ""
    return (*parts, "__init__")[len(inside)]


def check_cycles(modules: dict[str, Module], edges: Edges) -> Iterator[str]:
    """No module reaches itself through imports; each cycle is reported once."""
    reported: set[str] = set()
    for name in edges:
        if name in reported:
            continue
        cycle = shortest_cycle(name, edges)
        if cycle:
            reported |= set(cycle)
            line = edges[name][cycle[1]]
            yield f"{modules[name].path}:{line}: import cycle: {' -> '.join(cycle)}"


def shortest_cycle(start: str, edges: Edges) -> list[str]:
    """The shortest way from a module back to itself; empty if there is none."""
    ways = [[start]]
    seen: set[str] = set()
    for way in ways:
        for target in edges[way[-1]]:
            if target == start:
                return [*way, start]
            if target not in seen:
                seen.add(target)
                ways.append([*way, target])
    return []


def check_foreign(module: Module, rules: dict[str, Rule]) -> Iterator[str]:
    """No package imports what its rule forbids, such as torch in the runtime."""
    for folder, rule in rules.items():
        if child(folder, module.parts):
            for line, (first, *_) in imported_names(module):
                if first in rule.forbidden:
                    yield f"{module.path}:{line}: imports {first}, which {folder}/ never does"


# Private members.


def check_private(module: Module) -> Iterator[str]:
    """No use of another object's underscore member, whichever way it is spelled."""
    for node in ast.walk(module.tree):
        for name in private_uses(node):
            if not any(f"{name}.".startswith(f"{allowed}.") for allowed in ALLOWED_PRIVATE):
                line = getattr(node, "lineno", 1)
                yield f"{module.path}:{line}: uses the private name {name} of another object"


def private_uses(node: ast.AST) -> Iterator[str]:
    """The private names of others that one node uses, with what they are taken from."""
    if isinstance(node, ast.Attribute):
        if is_private(node.attr) and not is_own(node.value):
            yield f"{ast.unparse(node.value)}.{node.attr}"
    elif isinstance(node, ast.ImportFrom):
        base = "." * node.level + (node.module or "")
        inside_private = any(map(is_private, base.split(".")))
        for alias in node.names:
            if inside_private or is_private(alias.name):
                yield f"{base}.{alias.name}"
    elif isinstance(node, ast.Import):
        for alias in node.names:
            if any(map(is_private, alias.name.split("."))):
                yield alias.name
    elif isinstance(node, ast.Call) and len(node.args) > 1:
        function, (owner, member, *_) = node.func, node.args
        name = function.attr if isinstance(function, ast.Attribute) else ast.unparse(function)
        if (
            name.strip("_") in ("getattr", "setattr", "delattr", "hasattr", "getattribute")
            and isinstance(member, ast.Constant)
            and isinstance(member.value, str)
            and is_private(member.value)
            and not is_own(owner)
        ):
            yield f"{ast.unparse(owner)}.{member.value}"


def is_private(name: str) -> bool:
    """Whether a name is private: one leading underscore, or two without two at its end."""
    dunder = name.startswith("__") and name.endswith("__")
    return name.startswith("_") and not dunder and name not in PUBLIC_BY_CONVENTION


def is_own(owner: ast.expr) -> bool:
    """Whether members of an expression are the object's own: of ``self``, ``cls``, ``super()``."""
    if isinstance(owner, ast.Call):
        return isinstance(owner.func, ast.Name) and owner.func.id == "super"
    return isinstance(owner, ast.Name) and owner.id in ("self", "cls")


if __name__ == "__main__":
    sys.exit(main())

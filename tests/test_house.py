"""The house rules that a machine can check: import direction, forbidden calls, file and function length."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "pelton"
SOURCES = sorted(path for path in PACKAGE.rglob("*.py"))

ROOMS = [
    "errors",
    "types",
    "structured",
    "config",
    "terms",
    "settings",
    "quant",
    "plan",
    "weights",
    "models",
    "kv",
    "exec",
    "decode",
    "spec",
    "sched",
    "batch",
    "hidden",
    "events",
    "stats",
    "commit",
    "engine",
    "text",
    "tools",
    "outputs",
    "request",
    "loading",
    "requests",
    "llm",
    "async_llm",
    "traffic",
    "cost",
    "techniques",
    "serve",
    "cli",
]
"""A module imports only from rooms before its own."""

SERVE_ROOMS = [
    "seeing",
    "worker",
    "http",
    "settings",
    "answers",
    "openai",
    "responses",
    "anthropic",
    "batch",
    "page",
    "stats",
    "app",
    "served",
    "server",
]

ORDERS = {"pelton": ROOMS, "pelton.serve": SERVE_ROOMS}
"""The rooms of each package that has an order."""

FORBIDDEN_MODULES = {"pickle", "dill", "marshal", "shelve", "cloudpickle", "joblib"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_modules(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of every import from inside the package, however it is written."""
    package = ["pelton", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = [*base, *(node.module or "").split(".")] if node.module else base
            targets = [".".join([*stem, alias.name]) for alias in node.names]
        else:
            continue
        for target in targets:
            if target.startswith("pelton."):
                yield node.lineno, target


def room_within(package: str, module: str) -> str | None:
    """The room of `package` that a module is in; None where it is in none."""
    if not module.startswith(f"{package}."):
        return None
    room = module.removeprefix(f"{package}.").split(".")[0]
    return None if room.startswith("_") else room


def late_imports(path: Path, package: str) -> list[tuple[int, str]]:
    """Line and room of every import from a room of `package` that comes after the module's own."""
    order = ORDERS[package]
    room = room_within(package, ".".join(["pelton", *path.relative_to(PACKAGE).with_suffix("").parts]))
    if room is None:
        return []
    assert room in order, f"{room} has no place in the order of {package}"
    allowed = order[: order.index(room) + 1]
    rooms = ((line, room_within(package, module)) for line, module in imported_modules(path))
    return [(line, target) for line, target in rooms if target is not None and target not in allowed]


@pytest.mark.parametrize("package", ORDERS)
@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path, package: str) -> None:
    wrong = late_imports(path, package)
    assert not wrong, f"{path.name} imports from later rooms of {package}: {wrong}"


@pytest.mark.parametrize("package", ORDERS)
def test_every_room_in_an_order_exists(package: str) -> None:
    folder = PACKAGE.parent.joinpath(*package.split("."))
    found = {
        path.stem for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert set(ORDERS[package]) <= found


def test_serve_says_its_order() -> None:
    text = ast.get_docstring(ast.parse((PACKAGE / "serve" / "__init__.py").read_text()))
    assert text is not None
    assert re.findall(r"^    (\w+) {2,}", text, re.MULTILINE) == SERVE_ROOMS


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_code_comes_from_data(path: Path) -> None:
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] + (
                [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            )
            assert not FORBIDDEN_MODULES & {name.split(".")[0] for name in names}, f"line {node.lineno}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in FORBIDDEN_CALLS, f"line {node.lineno}: {node.func.id}()"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_and_functions_stay_readable(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or node.lineno) - node.lineno < 60, f"{node.name}, line {node.lineno}"


def test_only_one_module_knows_the_native_core() -> None:
    pattern = re.compile(r"^\s*(from|import) .*\b_native\b", re.MULTILINE)
    users = {room_of(path) for path in SOURCES if pattern.search(path.read_text())}
    assert users <= {"exec", "cost", "cli"}

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
    "adapt",
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

FORBIDDEN_MODULES = {"pickle", "dill", "marshal", "shelve", "cloudpickle", "joblib"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> Iterator[tuple[int, str]]:
    """Line and room of every import from inside the package, however it is written."""
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
            parts = target.split(".")
            if parts[0] == "pelton" and len(parts) > 1 and not parts[1].startswith("_"):
                yield node.lineno, parts[1]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        return
    assert room in ROOMS, f"{room} has no place in the order of rooms"
    allowed = set(ROOMS[: ROOMS.index(room) + 1])
    wrong = [(line, target) for line, target in imported_rooms(path) if target not in allowed]
    assert not wrong, f"{path.name} imports from later rooms: {wrong}"


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
